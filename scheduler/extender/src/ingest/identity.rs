//! Who speaks on a stream: the node that the API server's review of its token names. Never the message itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use berth_model::NodeName;
use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec, TokenReviewStatus};
use kube::Client;
use kube::api::{Api, PostParams};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};
use tonic::Status;

/// Where the API server writes the node of a token that is bound to a pod.
const NODE_NAME_KEY: &str = "authentication.kubernetes.io/node-name";
/// How long a review counts: so long may a token be used after its pod was deleted.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// How long a refusal counts: an agent that comes again and again with a bad token costs one review in this time.
const BAD_FOR: Duration = Duration::from_secs(10);
/// Most remembered reviews: two tokens of every node of a large cluster.
const REVIEWS_MAX: usize = 16_384;
/// Reviews asked for at once, so that a flood of bad tokens is no flood on the API server.
const REVIEWING_MAX: usize = 32;
/// Time for one review, waiting for its turn included.
const REVIEW_WITHIN: Duration = Duration::from_secs(5);
/// Longest token taken: those of Kubernetes are about a kilobyte.
const TOKEN_BYTES_MAX: usize = 8 << 10;

/// Why a stream is not let in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// `no-token`, `bad-token`, `no-node`, `account`, `no-review` or `busy`.
    pub reason: &'static str,
    /// What is wrong, in one sentence.
    pub text: String,
}

impl Refusal {
    pub(super) fn status(&self) -> Status {
        match self.reason {
            "no-token" | "bad-token" => Status::unauthenticated(&self.text),
            "no-node" | "account" => Status::permission_denied(&self.text),
            _ => Status::unavailable(&self.text),
        }
    }
}

/// How a port tells who speaks.
#[derive(Debug, Clone)]
pub enum Identity {
    /// Not at all: plain text on loopback. The first report names the node.
    Loopback,
    /// By token.
    Tokens(Arc<Tokens>),
}

impl Identity {
    /// The node that the header names; `None` where any is taken.
    pub(super) async fn node_of(&self, authorization: Option<&str>) -> Result<Option<NodeName>, Refusal> {
        match self {
            Self::Loopback => Ok(None),
            Self::Tokens(tokens) => tokens.node_of(authorization).await.map(Some),
        }
    }
}

/// Reviews of tokens, remembered for a minute by hash.
#[derive(Debug)]
pub struct Tokens {
    reviews: Api<TokenReview>,
    audience: String,
    account: String,
    known: Mutex<HashMap<[u8; 32], Known>>,
    turns: Semaphore,
}

#[derive(Debug)]
struct Known {
    verdict: Result<NodeName, Refusal>,
    until: Instant,
}

impl Tokens {
    /// Reviews by this client of tokens for this audience, held by this service account of this namespace.
    #[must_use]
    pub fn new(client: Client, audience: &str, namespace: &str, account: &str) -> Self {
        Self {
            reviews: Api::all(client),
            audience: audience.to_owned(),
            account: format!("system:serviceaccount:{namespace}:{account}"),
            known: Mutex::default(),
            turns: Semaphore::new(REVIEWING_MAX),
        }
    }

    async fn node_of(&self, authorization: Option<&str>) -> Result<NodeName, Refusal> {
        let Some(token) = authorization.and_then(|header| header.strip_prefix("Bearer ")) else {
            let text = "metadata authorization is missing, Bearer and a ServiceAccount token is right".to_owned();
            return Err(Refusal { reason: "no-token", text });
        };
        if token.len() > TOKEN_BYTES_MAX {
            let text = format!("the token has {} bytes, at most {TOKEN_BYTES_MAX} are taken", token.len());
            return Err(Refusal { reason: "bad-token", text });
        }
        let mut hash = [0; 32];
        hash.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
        let now = Instant::now();
        if let Some(known) = self.known().get(&hash).filter(|known| known.until > now) {
            return known.verdict.clone();
        }
        let verdict = self.review(token).await;
        self.remember(hash, &verdict);
        verdict
    }

    async fn review(&self, token: &str) -> Result<NodeName, Refusal> {
        let review = TokenReview {
            spec: TokenReviewSpec { audiences: Some(vec![self.audience.clone()]), token: Some(token.to_owned()) },
            ..TokenReview::default()
        };
        let params = PostParams::default();
        let asked = async {
            let _turn = self.turns.acquire().await;
            self.reviews.create(&params, &review).await
        };
        let no_review = |text: String| Refusal { reason: "no-review", text };
        let status = match timeout(REVIEW_WITHIN, asked).await {
            Ok(Ok(answer)) => answer.status.unwrap_or_default(),
            Ok(Err(error)) => return Err(no_review(format!("the API server does not review the token: {error}"))),
            Err(_) => return Err(no_review("the API server does not review the token in time".to_owned())),
        };
        self.judge(status)
    }

    /// What a review says.
    fn judge(&self, status: TokenReviewStatus) -> Result<NodeName, Refusal> {
        let bad = |text: String| Refusal { reason: "bad-token", text };
        if status.authenticated != Some(true) {
            let why = status.error.unwrap_or_else(|| "not authenticated".to_owned());
            return Err(bad(format!("the API server does not know the token: {why}")));
        }
        // An API server that knows nothing of audiences answers none; then the token might be anybody's.
        if !status.audiences.unwrap_or_default().contains(&self.audience) {
            return Err(bad(format!("the token is not for audience {}", self.audience)));
        }
        let user = status.user.unwrap_or_default();
        let name = user.username.unwrap_or_default();
        if name != self.account {
            let text = format!("the token is {name}'s, {} is right", self.account);
            return Err(Refusal { reason: "account", text });
        }
        let extra = user.extra.unwrap_or_default();
        let no_node = |text: String| Refusal { reason: "no-node", text };
        match extra.get(NODE_NAME_KEY).map(Vec::as_slice) {
            Some([node]) => NodeName::parse(node).map_err(|error| no_node(error.to_string())),
            _ => Err(no_node("the token names no node; that of a pod on the node is right".to_owned())),
        }
    }

    fn remember(&self, hash: [u8; 32], verdict: &Result<NodeName, Refusal>) {
        let now = Instant::now();
        let good_for = match verdict {
            Ok(_) => GOOD_FOR,
            // Nothing was learned about the token.
            Err(refusal) if refusal.reason == "no-review" => return,
            Err(_) => BAD_FOR,
        };
        let mut known = self.known();
        if known.len() >= REVIEWS_MAX {
            known.retain(|_, k| k.until > now);
        }
        if known.len() >= REVIEWS_MAX {
            known.clear();
        }
        known.insert(hash, Known { verdict: verdict.clone(), until: now + good_for });
    }

    fn known(&self) -> MutexGuard<'_, HashMap<[u8; 32], Known>> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
