//! Why a token was not accepted.

use crate::language::{Language, Localized};

/// Why a request was not authenticated. It never holds any part of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejection {
    /// No `Authorization` field.
    #[error("the request carries no Authorization field; send Authorization: Bearer and a token")]
    Missing,
    /// More than one `Authorization` field.
    #[error("the request carries more than one Authorization field")]
    Repeated,
    /// Another scheme than `Bearer`.
    #[error("the Authorization scheme is not Bearer")]
    Scheme,
    /// Longer than [`super::MAX_TOKEN_BYTES`].
    #[error("the token is longer than {} bytes", super::MAX_TOKEN_BYTES)]
    Oversize,
    /// Not a JWT in compact form.
    #[error("the token is not a JWT of three base64url parts with JSON inside")]
    Malformed,
    /// `typ` is neither `JWT` nor `at+jwt`.
    #[error("the token's typ is neither JWT nor at+jwt")]
    Type,
    /// A `crit` header: no extension is understood here.
    #[error("the token demands an extension (crit) that is not understood")]
    Critical,
    /// `alg` is none of those that the configured keys are pinned to.
    #[error("the token's algorithm is not one that a configured key is pinned to")]
    Algorithm,
    /// No configured key fits, or more than one and no `kid` to tell them apart.
    #[error("no configured key fits the token; check its kid")]
    UnknownKey,
    /// No configured key fits, and the JWKS has not been reached yet.
    #[error("no configured key fits the token, and the key set (JWKS) has not been reached yet")]
    KeysUnavailable,
    /// The signature does not fit.
    #[error("the token's signature does not fit")]
    BadSignature,
    /// A required claim is missing.
    #[error("the token lacks the claim {0}")]
    MissingClaim(&'static str),
    /// A claim has the wrong type, or stands twice.
    #[error("the token's claim {0} is not of the right form")]
    InvalidClaim(&'static str),
    /// Past `exp`.
    #[error("the token has expired")]
    Expired,
    /// Before `nbf`.
    #[error("the token is not valid yet; check the clocks")]
    NotYetValid,
    /// Another issuer than the configured one.
    #[error("the token is from another issuer")]
    WrongIssuer,
    /// The configured audience is not among the token's.
    #[error("the token is meant for another audience")]
    WrongAudience,
}

impl Rejection {
    /// Every word that [`Self::reason`] answers.
    pub const REASONS: [&str; 17] = [
        "missing",
        "repeated",
        "scheme",
        "oversize",
        "malformed",
        "type",
        "critical",
        "algorithm",
        "unknown_key",
        "keys_unavailable",
        "bad_signature",
        "missing_claim",
        "invalid_claim",
        "expired",
        "not_yet_valid",
        "wrong_issuer",
        "wrong_audience",
    ];

    /// One word for metrics and logs.
    pub const fn reason(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Repeated => "repeated",
            Self::Scheme => "scheme",
            Self::Oversize => "oversize",
            Self::Malformed => "malformed",
            Self::Type => "type",
            Self::Critical => "critical",
            Self::Algorithm => "algorithm",
            Self::UnknownKey => "unknown_key",
            Self::KeysUnavailable => "keys_unavailable",
            Self::BadSignature => "bad_signature",
            Self::MissingClaim(_) => "missing_claim",
            Self::InvalidClaim(_) => "invalid_claim",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
        }
    }
}

impl Localized for Rejection {
    fn localized(&self, language: Language) -> String {
        let chinese = match (language, self) {
            (Language::English, _) => return self.to_string(),
            (Language::Chinese, Self::MissingClaim(claim)) => return format!("令牌缺少声明 {claim}"),
            (Language::Chinese, Self::InvalidClaim(claim)) => {
                return format!("令牌的声明 {claim} 形式不正确");
            }
            (Language::Chinese, Self::Oversize) => {
                return format!("令牌超过 {} 字节", super::MAX_TOKEN_BYTES);
            }
            (Language::Chinese, Self::Missing) => {
                "请求没有 Authorization 字段，请发送 Authorization: Bearer 和令牌"
            }
            (Language::Chinese, Self::Repeated) => "请求含有多个 Authorization 字段",
            (Language::Chinese, Self::Scheme) => "Authorization 的方案不是 Bearer",
            (Language::Chinese, Self::Malformed) => "令牌不是由三段 base64url 编码的 JSON 组成的 JWT",
            (Language::Chinese, Self::Type) => "令牌的 typ 既不是 JWT 也不是 at+jwt",
            (Language::Chinese, Self::Critical) => "令牌要求的扩展（crit）无法识别",
            (Language::Chinese, Self::Algorithm) => "令牌的算法不是已配置密钥所限定的算法",
            (Language::Chinese, Self::UnknownKey) => "没有已配置的密钥与令牌相符，请检查 kid",
            (Language::Chinese, Self::KeysUnavailable) => {
                "没有已配置的密钥与令牌相符，且密钥集（JWKS）尚未取得"
            }
            (Language::Chinese, Self::BadSignature) => "令牌的签名不正确",
            (Language::Chinese, Self::Expired) => "令牌已过期",
            (Language::Chinese, Self::NotYetValid) => "令牌尚未生效，请检查时钟",
            (Language::Chinese, Self::WrongIssuer) => "令牌的签发者不符",
            (Language::Chinese, Self::WrongAudience) => "令牌的受众不符",
        };
        chinese.to_owned()
    }
}
