//! What a person makes of temporary numbers: list, assign, void.

use std::sync::Arc;

use super::is_unreachable;
use crate::{
    language::{Language, Localized},
    store::{
        Action, Decision, Journal, Note, RowSwap, Status, StoreError, TemporaryNumber, TemporaryQuery,
        TemporaryRow, TemporaryStore, Verdict,
    },
};

/// How often a lost race is run again: a row changes three times in its life, and back each time an assignment is withdrawn.
const ATTEMPTS: usize = 16;

/// A page of temporary numbers.
#[derive(Debug)]
pub struct Listed {
    /// In the order of their numbers.
    pub rows: Vec<TemporaryRow>,
    /// Whether these are those of all nodes that have handed theirs over; else they are those that this node knows, the shared
    /// store being away.
    pub complete: bool,
}

/// Why a temporary number was not resolved.
#[derive(Debug, thiserror::Error)]
pub enum ResolveError {
    /// There is no such number, or its node has not handed it over yet.
    #[error(
        "there is no temporary number {0}; one of another node appears once that node has reached the store"
    )]
    Unknown(TemporaryNumber),
    /// It has taken another way.
    #[error("{row}", row = conflict(.0, Language::English))]
    Conflict(Box<TemporaryRow>),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

fn conflict(row: &TemporaryRow, language: Language) -> String {
    let number = &row.number;
    match (language, row.status(), row.final_number()) {
        (Language::English, Status::Open, _) => {
            format!("{number} is being assigned: finish that by `assign`")
        }
        (Language::English, Status::Void, _) => format!("{number} is void and cannot be assigned"),
        (Language::English, Status::Assigned, last) => {
            format!("{number} is assigned to {} and cannot be void", last.unwrap_or_default())
        }
        (Language::Chinese, Status::Open, _) => format!("{number} 正在转正：请以 `assign` 完成"),
        (Language::Chinese, Status::Void, _) => format!("{number} 已作废，不能转正"),
        (Language::Chinese, Status::Assigned, last) => {
            format!("{number} 已转正为 {}，不能作废", last.unwrap_or_default())
        }
    }
}

impl Localized for ResolveError {
    fn localized(&self, language: Language) -> String {
        match (language, self) {
            (_, Self::Conflict(row)) => conflict(row, language),
            (Language::English, _) => self.to_string(),
            (Language::Chinese, Self::Unknown(number)) => {
                format!("没有临时号码 {number}；其他节点的号码在该节点连上存储之后才会出现")
            }
            (Language::Chinese, Self::Store(_)) => "存储出错".into(),
        }
    }
}

/// Reads and resolves temporary numbers of every node.
pub struct Resolver {
    shared: Arc<dyn TemporaryStore>,
    journal: Option<Arc<dyn Journal>>,
}

impl Resolver {
    /// Over the store that all nodes share, and the journal of this one where that is another store.
    pub fn new(shared: Arc<dyn TemporaryStore>, journal: Option<Arc<dyn Journal>>) -> Self {
        Self { shared, journal }
    }

    /// A page of those that `visible` lets through.
    ///
    /// # Errors
    ///
    /// No store answers.
    pub async fn list(
        &self,
        query: &TemporaryQuery,
        visible: impl Fn(&TemporaryNumber) -> bool,
    ) -> Result<Listed, StoreError> {
        match (page(&*self.shared, query, &visible).await, &self.journal) {
            (Ok(rows), _) => Ok(Listed { rows, complete: true }),
            (Err(error), Some(journal)) if is_unreachable(&error) => {
                Ok(Listed { rows: page(&**journal, query, &visible).await?, complete: false })
            }
            (Err(error), _) => Err(error),
        }
    }

    /// A number as it stands; `None` where nobody has handed it over.
    ///
    /// # Errors
    ///
    /// The store fails.
    pub async fn find(&self, number: &TemporaryNumber) -> Result<Option<TemporaryRow>, StoreError> {
        if let Some(row) = self.shared.find(number.clone()).await? {
            return Ok(Some(row));
        }
        // One that only this node has is handed over at once.
        let Some(journal) = &self.journal else { return Ok(None) };
        let Some(row) = journal.find(number.clone()).await? else { return Ok(None) };
        let instance = self.shared.upload(vec![row.clone()]).await?;
        journal.acknowledged(vec![row], instance).await?;
        self.shared.find(number.clone()).await
    }

    /// Takes a person's decision. The row that is answered stands as decided; one that is being assigned still needs its
    /// final number ([`Self::complete`]). The note tells of a number that is void now.
    ///
    /// # Errors
    ///
    /// `Conflict` where an earlier decision was another one.
    pub async fn decide(
        &self,
        number: &TemporaryNumber,
        action: Action,
        decision: &Decision,
        note: Option<&Note>,
    ) -> Result<TemporaryRow, ResolveError> {
        self.step(number, |row| row.decide(action, decision), note).await
    }

    /// Notes the final number, and who assigned it; the row that is answered has the one that counts.
    ///
    /// # Errors
    ///
    /// `Conflict` where the assignment was withdrawn meanwhile.
    pub async fn complete(
        &self,
        number: &TemporaryNumber,
        final_number: &str,
        note: Option<&Note>,
    ) -> Result<TemporaryRow, ResolveError> {
        self.step(number, |row| row.complete(final_number), note).await
    }

    /// Takes the decision to assign back: it is certain that no final number was or will be drawn.
    ///
    /// # Errors
    ///
    /// The store fails.
    pub async fn withdraw(&self, number: &TemporaryNumber) -> Result<TemporaryRow, ResolveError> {
        self.step(number, TemporaryRow::withdraw, None).await
    }

    /// Changes a row by what `judge` says of it, as it stands at that moment, and notes the change.
    async fn step(
        &self,
        number: &TemporaryNumber,
        judge: impl Fn(&TemporaryRow) -> Verdict,
        note: Option<&Note>,
    ) -> Result<TemporaryRow, ResolveError> {
        let mut present = self.find(number).await?;
        for _ in 0..ATTEMPTS {
            let row = present.ok_or_else(|| ResolveError::Unknown(number.clone()))?;
            let next = match judge(&row) {
                Verdict::Becomes(next) => *next,
                Verdict::Stands => return Ok(row),
                Verdict::Contrary => return Err(ResolveError::Conflict(Box::new(row))),
            };
            let swap = match note {
                Some(note) => self.shared.swap_noted(next.clone(), note.clone()).await?,
                None => self.shared.swap(next.clone()).await?,
            };
            present = match swap {
                RowSwap::Done => {
                    self.remember(&next).await;
                    return Ok(next);
                }
                RowSwap::Changed(present) => present,
            };
        }
        Err(StoreError::Timeout { store: "temporary numbers", operation: "swap" }.into())
    }

    /// Keeps a copy of a decision here, to be handed over like a row of this node: should the shared store forget the decision, it
    /// learns of it again.
    async fn remember(&self, row: &TemporaryRow) {
        let Some(journal) = &self.journal else { return };
        if let Err(error) = journal.upload(vec![row.clone()]).await {
            let error = &error as &dyn std::error::Error;
            tracing::warn!(error, number = row.number.as_str(), "a decision is not in the local journal");
        }
    }
}

/// A page of visible rows. A prefix key that is not visible is passed over with all its numbers.
async fn page(
    store: &(impl TemporaryStore + ?Sized),
    query: &TemporaryQuery,
    visible: &impl Fn(&TemporaryNumber) -> bool,
) -> Result<Vec<TemporaryRow>, StoreError> {
    let limit = usize::try_from(query.limit).unwrap_or(usize::MAX);
    let (mut found, mut query) = (Vec::new(), query.clone());
    loop {
        let mut passed_over = None;
        for row in store.list(query.clone()).await? {
            if !visible(&row.number) {
                passed_over = Some(TemporaryNumber::behind(row.number.key()));
                break;
            }
            found.push(row);
            if found.len() == limit {
                return Ok(found);
            }
        }
        // A list that was read to its end and did not fill the page was the last.
        if passed_over.is_none() {
            return Ok(found);
        }
        query.after = passed_over;
    }
}
