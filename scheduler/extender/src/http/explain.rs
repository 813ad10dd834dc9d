//! `/explain`, for people and the CLI. kube-scheduler never calls it, so it speaks in HTTP status codes.

use std::time::Instant;

use bytes::Bytes;
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::{Method, Request, Response, StatusCode};

use super::verbs::Answered;
use super::{ExplainError, ExplainRequest, Extender, Failure, OK, Verb, json};
use crate::wire;

const USAGE: &str = "GET /explain?namespace=NAMESPACE&pod=NAME, or POST {\"Pod\": ..., \"NodeNames\": [...] or null}";

impl Extender {
    pub(super) async fn explain(&self, request: Request<Incoming>, deadline: Instant) -> Answered {
        if let Some(failure) = self.not_ready() {
            return refused(StatusCode::SERVICE_UNAVAILABLE, failure.code, &failure.text);
        }
        if *request.method() == Method::GET {
            let query = request.uri().query().unwrap_or_default();
            return match (parameter(query, "namespace"), parameter(query, "pod")) {
                (Some(namespace), Some(pod)) => self.ask(&ExplainRequest::Named { namespace, pod }),
                _ => refused(StatusCode::BAD_REQUEST, "bad-request", USAGE),
            };
        }
        let body = match self.read(request.into_body(), deadline).await {
            Ok(body) => body,
            Err(failure) => return refused(StatusCode::BAD_REQUEST, failure.code, &failure.text),
        };
        let args = match wire::decode_extender_args(body.bytes()) {
            Ok(args) => args,
            Err(error) => return refused(StatusCode::BAD_REQUEST, "bad-request", &error.to_string()),
        };
        match &args.pod {
            Some(pod) => self.ask(&ExplainRequest::Given { pod, names: args.node_names.as_deref() }),
            None => refused(StatusCode::BAD_REQUEST, "bad-request", USAGE),
        }
    }

    fn ask(&self, request: &ExplainRequest<'_>) -> Answered {
        let asked: Result<_, Failure> = self.caught(Verb::Explain, || Ok(self.0.decide.explain(request)));
        match asked {
            Ok(Ok(body)) => (OK, json(StatusCode::OK, body)),
            Ok(Err(error)) => {
                let (status, code) = match &error {
                    ExplainError::NotFound(_) => (StatusCode::NOT_FOUND, "not-found"),
                    ExplainError::Invalid(_) => (StatusCode::BAD_REQUEST, "bad-request"),
                };
                refused(status, code, &error.to_string())
            }
            Err(failure) => refused(StatusCode::INTERNAL_SERVER_ERROR, failure.code, &failure.text),
        }
    }
}

/// A parameter of the query. Names of namespaces and pods need no percent escapes, so none are decoded.
fn parameter<'a>(query: &'a str, key: &str) -> Option<&'a str> {
    let value = query.split('&').filter_map(|part| part.split_once('=')).find(|(k, _)| *k == key)?.1;
    (!value.is_empty()).then_some(value)
}

fn refused(status: StatusCode, code: &'static str, text: &str) -> Answered {
    let response: Response<Full<Bytes>> = json(status, wire::encode_error_text(text));
    (code, response)
}
