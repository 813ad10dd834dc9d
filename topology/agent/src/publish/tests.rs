//! Claims about the agent and an API server that refuses, stalls, or changes its mind. A server in this process plays the real one's
//! worst moments; the real one is in the workspace's integration tests.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use berth_model::{BootId, Driver, Generation, LinkMatrix, NodeName, NodeTopology as Topology, Parts};
use http::{Method, Request, Response};
use kube::client::Body;
use serde_json::{Value, json};

use super::*;

/// What the server does with one request instead of serving it.
enum Fault {
    Answer(u16, &'static str),
    Stall,
    /// Deletes the object first, as a person would.
    Delete,
}

/// One stored object, faults to come, and the requests seen.
#[derive(Default)]
struct Server {
    object: Option<Value>,
    version: u64,
    faults: VecDeque<Option<Fault>>,
    seen: Vec<String>,
}

type Shared = Arc<Mutex<Server>>;

fn status(code: u16, message: &str) -> (u16, Value) {
    let reason = if message == "not found" { "NotFound" } else { "" };
    (
        code,
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": message, "reason": reason}),
    )
}

impl Server {
    fn answer(&mut self, method: &Method, path: &str, body: &Value) -> (u16, Value) {
        if path.contains("/nodes/") {
            return (
                200,
                json!({"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": {"name": "n", "uid": "u"}}),
            );
        }
        self.version += 1;
        let version = self.version.to_string();
        match (method.as_str(), &mut self.object) {
            ("POST", object) => {
                *object = Some(body.clone());
                self.object.as_mut().unwrap()["metadata"]["resourceVersion"] = version.into();
            }
            (_, None) => return status(404, "not found"),
            ("PATCH", Some(object)) => {
                if body["metadata"]["resourceVersion"] != object["metadata"]["resourceVersion"] {
                    return status(409, "the object has been modified");
                }
                object["status"] = body["status"].clone();
                object["metadata"]["resourceVersion"] = version.into();
            }
            _ => {}
        }
        (200, self.object.clone().unwrap())
    }
}

fn client(server: &Shared) -> Client {
    let server = Arc::clone(server);
    let service = tower::service_fn(move |request: Request<Body>| {
        let server = Arc::clone(&server);
        async move {
            let (method, path) = (request.method().clone(), request.uri().path().to_owned());
            let bytes = request.into_body().collect_bytes().await?;
            let body = serde_json::from_slice(&bytes).unwrap_or_default();
            let fault = {
                let mut server = server.lock().unwrap();
                server.seen.push(format!("{method} {path}"));
                server.faults.pop_front().flatten()
            };
            let (code, answer) = match fault {
                Some(Fault::Stall) => std::future::pending().await,
                Some(Fault::Answer(code, message)) => status(code, message),
                Some(Fault::Delete) => {
                    let mut server = server.lock().unwrap();
                    server.object = None;
                    server.answer(&method, &path, &body)
                }
                None => server.lock().unwrap().answer(&method, &path, &body),
            };
            let response = Response::builder().status(code).body(Body::from(serde_json::to_vec(&answer)?));
            Ok::<_, tower::BoxError>(response?)
        }
    });
    Client::new(service, "default")
}

fn read(boot_id: &str) -> Topology {
    Topology::try_new(Parts {
        node: NodeName::parse("n").unwrap(),
        boot_id: BootId::parse(boot_id).unwrap(),
        generation: Generation(0),
        driver: Driver::Absent("no library".to_owned()),
        zones: Vec::new(),
        gpus: Vec::new(),
        nics: Vec::new(),
        links: LinkMatrix::default(),
        host: berth_model::Host::default(),
        findings: Vec::new(),
        drifts: Vec::new(),
        refusals: Vec::new(),
        device_plugin: None,
    })
    .unwrap()
}

/// A publisher, and what its agent says.
struct Told {
    publisher: Publisher,
    statement: Arc<Statement>,
}

impl Told {
    /// Publishes a reading.
    async fn publish(&mut self, read: &Topology) -> Result<Published, PublishError> {
        self.statement.read(read.clone(), tokio::time::Instant::now());
        self.publisher.publish().await
    }
}

fn start(faults: impl IntoIterator<Item = Option<Fault>>) -> (Shared, Told) {
    let server = Shared::default();
    server.lock().unwrap().faults.extend(faults);
    let statement = Arc::new(Statement::new(false));
    let publisher = Publisher::new("n".to_owned(), client(&server), Arc::clone(&statement));
    (server, Told { publisher, statement })
}

#[tokio::test]
async fn a_node_without_an_object_gets_one_that_its_node_owns() {
    let (server, mut told) = start([]);
    assert_eq!(told.publish(&read("a")).await.unwrap(), Published::Written);
    assert_eq!(told.publish(&read("a")).await.unwrap(), Published::Unchanged);
    let server = server.lock().unwrap();
    let base = "/apis/topology.berth.dev/v1alpha1/nodetopologies";
    let expected = [
        format!("GET {base}/n"),
        "GET /api/v1/nodes/n".to_owned(),
        format!("POST {base}"),
        format!("PATCH {base}/n/status"),
    ];
    assert_eq!(server.seen, expected);
    let object = server.object.as_ref().unwrap();
    assert_eq!(
        object["metadata"]["ownerReferences"][0],
        json!({"apiVersion": "v1", "kind": "Node", "name": "n", "uid": "u"})
    );
    assert_eq!(object["status"]["generation"], 1);
}

#[tokio::test]
async fn a_second_writer_makes_the_agent_look_again_and_outdo_it() {
    let (server, mut told) = start([]);
    told.publish(&read("a")).await.unwrap();
    {
        let mut server = server.lock().unwrap();
        let object = server.object.as_mut().unwrap();
        object["metadata"]["resourceVersion"] = "99".into();
        object["status"]["generation"] = 50.into();
    }
    assert_eq!(told.publish(&read("b")).await.unwrap(), Published::Written);
    assert_eq!(told.publisher.generation(), 51);
}

#[tokio::test]
async fn an_object_deleted_under_way_is_made_again_with_a_higher_generation() {
    let (server, mut told) = start([]);
    told.publish(&read("a")).await.unwrap();
    server.lock().unwrap().faults.push_back(Some(Fault::Delete));
    assert_eq!(told.publish(&read("b")).await.unwrap(), Published::Written);
    assert_eq!(server.lock().unwrap().object.as_ref().unwrap()["status"]["generation"], 2);
}

#[tokio::test]
async fn a_refusal_carries_the_servers_own_words() {
    let words = "ValidatingAdmissionPolicy 'own-node' denied request";
    for code in [400, 403, 422] {
        let (_server, mut told) = start([None, None, None, Some(Fault::Answer(code, words))]);
        let error = told.publish(&read("a")).await.unwrap_err();
        assert!(error.is_refusal());
        assert_eq!(error.to_string(), format!("write the report: the API server refuses with {code}: {words}"));
    }
}

#[tokio::test]
async fn a_missing_definition_is_named() {
    let (_server, mut told) = start([Some(Fault::Answer(404, "404 page not found"))]);
    let error = told.publish(&read("a")).await.unwrap_err().to_string();
    assert!(error.ends_with("404 page not found; is the CRD nodetopologies.topology.berth.dev installed?"), "{error}");
}

#[tokio::test]
async fn an_overloaded_server_is_no_refusal() {
    for code in [429, 500, 503, 504] {
        let (_server, mut told) = start([Some(Fault::Answer(code, "busy"))]);
        let error = told.publish(&read("a")).await.unwrap_err();
        assert_eq!(error.word(), "unreachable", "{code}");
        assert_eq!(told.publish(&read("a")).await.unwrap(), Published::Written);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_is_given_up_after_the_deadline() {
    let (_server, mut told) = start([Some(Fault::Stall)]);
    let started = tokio::time::Instant::now();
    let error = told.publish(&read("a")).await.unwrap_err();
    assert_eq!(error.to_string(), "read the own NodeTopology: no answer from the API server within 10s");
    assert_eq!(started.elapsed(), CALL_TIMEOUT);
}

#[tokio::test]
async fn endless_conflicts_are_given_up_and_told() {
    let conflict = || Some(Fault::Answer(409, "modified"));
    let (server, mut told) = start([]);
    told.publish(&read("a")).await.unwrap();
    // Each try is a write, and from the second on a look before it.
    server.lock().unwrap().faults.extend([conflict(), None, conflict(), None, conflict(), None, conflict()]);
    let error = told.publish(&read("b")).await.unwrap_err();
    assert_eq!((error.word(), error.is_refusal()), ("conflict", false));
}
