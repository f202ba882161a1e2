//! What was found, a line for each.

use std::io::{self, Write};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Note,
    Fail,
}

impl Verdict {
    const fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Fail => "FAIL",
        }
    }
}

/// The findings in their order.
#[derive(Debug, Default)]
pub(super) struct Report {
    lines: Vec<(Verdict, &'static str, String)>,
}

impl Report {
    /// As it should be.
    pub(super) fn ok(&mut self, subject: &'static str, finding: impl Into<String>) {
        self.lines.push((Verdict::Ok, subject, finding.into()));
    }

    /// Worth knowing, and no reason not to issue.
    pub(super) fn note(&mut self, subject: &'static str, finding: impl Into<String>) {
        self.lines.push((Verdict::Note, subject, finding.into()));
    }

    /// A reason not to issue.
    pub(super) fn fail(&mut self, subject: &'static str, finding: impl Into<String>) {
        self.lines.push((Verdict::Fail, subject, finding.into()));
    }

    pub(super) fn failures(&self) -> usize {
        self.lines.iter().filter(|(verdict, ..)| *verdict == Verdict::Fail).count()
    }

    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let width = self.lines.iter().map(|(_, subject, _)| subject.len()).max().unwrap_or(0);
        for (verdict, subject, finding) in &self.lines {
            writeln!(out, "{:<4}  {subject:<width$}  {finding}", verdict.word())?;
        }
        Ok(())
    }
}
