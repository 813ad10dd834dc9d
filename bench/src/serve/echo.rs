//! The other arm: reads a body whole and answers with as many bytes as it was told. It decides nothing and copies nothing it
//! need not, so what it takes is the least that any handler on this stack takes.

use std::sync::Arc;

use arc_swap::ArcSwap;
use berth_extender::http::Respond;
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::{Request, Response, StatusCode};

/// Answers every request with the same bytes. Clones share them.
#[derive(Debug, Clone, Default)]
pub(super) struct Echo {
    answer: Arc<ArcSwap<Bytes>>,
}

impl Echo {
    /// Sets the size of the answers to come.
    pub(super) fn answer_with(&self, size: usize) {
        self.answer.store(Arc::new(Bytes::from(vec![b' '; size])));
    }
}

impl Respond for Echo {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let read = request.into_body().collect().await.map(|body| body.to_bytes());
        let mut response = Response::new(Full::new(self.answer.load().as_ref().clone()));
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if read.is_err() {
            *response.status_mut() = StatusCode::BAD_REQUEST;
        }
        response
    }
}
