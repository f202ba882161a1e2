//! Why strict numbers are not issued although the store answers: it may have forgotten some that it had acknowledged.

use std::fmt;

use crate::language::{Language, Localized};

/// Why a strict ledger is suspended. All but [`Suspension::Settling`] last until a person resumes, or who is missing comes back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Suspension {
    /// The server was promoted or recovered, and nodes are comparing it with what they remember.
    Settling,
    /// The tables were made from a dump, or copied.
    Restored,
    /// The server lacks what it had acknowledged.
    Forgotten {
        /// To whom.
        node: String,
    },
    /// The server was promoted or recovered, and nobody can tell whether it lacks anything.
    Silent {
        /// Who could.
        nodes: Vec<String>,
    },
}

impl fmt::Display for Suspension {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.localized(Language::English))
    }
}

impl Localized for Suspension {
    fn localized(&self, language: Language) -> String {
        /// What to do.
        const RESUME: &str =
            "an operator runs `numgen check`, advances the counters and runs `numgen resume`";
        const RESUME_CHINESE: &str = "请管理员运行 `numgen check`，前移计数器后运行 `numgen resume`";
        match (language, self) {
            (Language::English, Self::Settling) => {
                "strict numbers wait: PostgreSQL was promoted or recovered, and is being compared with what nodes remember; try again"
                    .into()
            }
            (Language::Chinese, Self::Settling) => {
                "严格编号暂停：PostgreSQL 已切换或恢复，正与各节点的记录核对，请稍后重试".into()
            }
            (Language::English, Self::Restored) => format!(
                "strict numbers are suspended: the database was restored from a dump or copied, and may lack numbers that were issued; {RESUME}"
            ),
            (Language::Chinese, Self::Restored) => {
                format!("严格编号已停用：数据库由备份还原或复制而来，可能缺少已发出的编号；{RESUME_CHINESE}")
            }
            (Language::English, Self::Forgotten { node }) => format!(
                "strict numbers are suspended: PostgreSQL lacks what it had acknowledged to node {node}; {RESUME}"
            ),
            (Language::Chinese, Self::Forgotten { node }) => {
                format!("严格编号已停用：PostgreSQL 丢失了曾向节点 {node} 确认的内容；{RESUME_CHINESE}")
            }
            (Language::English, Self::Silent { nodes }) if nodes.is_empty() => format!(
                "strict numbers are suspended: PostgreSQL was promoted or recovered, and no node is left that could tell whether it \
                 lacks anything; {RESUME}"
            ),
            (Language::Chinese, Self::Silent { nodes }) if nodes.is_empty() => {
                format!("严格编号已停用：PostgreSQL 已切换或恢复，没有节点能核对其内容；{RESUME_CHINESE}")
            }
            (Language::English, Self::Silent { nodes }) => format!(
                "strict numbers are suspended: PostgreSQL was promoted or recovered, and it is not known whether it lacks numbers that were \
                 issued by {}; bring these back, or {RESUME}",
                nodes.join(", ")
            ),
            (Language::Chinese, Self::Silent { nodes }) => format!(
                "严格编号已停用：PostgreSQL 已切换或恢复，无法确认是否缺少节点 {} 发出的编号；请恢复这些节点，或{RESUME_CHINESE}",
                nodes.join("、")
            ),
        }
    }
}
