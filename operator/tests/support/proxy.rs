//! A proxy between an operator and the API server, which logs requests and injects faults. It speaks plain HTTP to the
//! operator and is itself an ordinary client of the server.

use std::convert::Infallible;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt, stream};
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING,
};
use http::{Method, Request, Response};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt, BodyStream, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::{Client, Config};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

type ProxyError = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, ProxyError>;
type FaultRule = Box<dyn FnMut(&ProxiedRequest) -> Fault + Send>;

/// A request.
#[derive(Clone, Debug)]
pub struct ProxiedRequest {
    /// Its method.
    pub method: Method,
    /// Its path, with the query.
    pub path: String,
    /// When.
    pub at: Instant,
}

impl ProxiedRequest {
    /// Whether it is a watch.
    pub fn watches(&self) -> bool {
        self.path.contains("watch=")
    }

    /// Whether it is a list.
    pub fn lists(&self) -> bool {
        let path = self.path.split('?').next().unwrap_or_default();
        let collection = ["limit=", "labelSelector=", "resourceVersion="];
        self.method == Method::GET
            && !self.watches()
            && collection
                .iter()
                .any(|parameter| self.path.contains(parameter))
            && !path.ends_with("/streampress-operator")
    }

    /// Whether it is about the leader's Lease: slots are never posted or put by an operator.
    pub fn elects(&self) -> bool {
        self.path.contains("/leases")
            && (matches!(self.method, Method::POST | Method::PUT)
                || (self.method == Method::GET && self.path.contains("/leases/")))
    }

    /// Whether it writes the leader's Lease.
    pub fn writes_lease(&self) -> bool {
        self.elects() && self.method != Method::GET
    }

    /// Whether it changes an object.
    pub fn writes(&self) -> bool {
        self.method != Method::GET && !self.elects()
    }
}

/// What happens to a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It is forwarded.
    None,
    /// The connection ends without an answer; the server does not get the request.
    Refuse,
    /// No answer, ever; the server does not get the request.
    Hang,
    /// The server gets the request, and its answer is lost.
    AnswerLost,
    /// The proxy answers with this status in the server's place.
    Answer(u16),
    /// The proxy answers with success and an empty body, as a watch that ends at once.
    Empty,
    /// It is forwarded after so long.
    Late(Duration),
    /// It is forwarded, and after so long the connection breaks.
    Cut(Duration),
    /// It is forwarded, and after so long nothing more comes.
    Stall(Duration),
}

/// All connections at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiOutage {
    /// They break, and new ones do too.
    Refused,
    /// They are silent, and those that existed before stay so for ever.
    Silent,
}

/// The proxy; ends when dropped.
pub struct Proxy {
    inner: Arc<ProxyInner>,
    port: u16,
    _task: AbortOnDropHandle<()>,
}

struct ProxyInner {
    server: Client,
    state: Mutex<ProxyState>,
}

struct ProxyState {
    rule: FaultRule,
    log: Vec<ProxiedRequest>,
    outage: Option<ApiOutage>,
    /// What runs now breaks, or falls silent, when these are cancelled.
    broken: CancellationToken,
    silent: CancellationToken,
}

impl Proxy {
    /// In front of the API server of the kubeconfig. Everything is forwarded.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(ProxyInner {
            server: Client::try_default().await.expect("an API server"),
            state: Mutex::new(ProxyState {
                rule: Box::new(|_| Fault::None),
                log: Vec::new(),
                outage: None,
                broken: CancellationToken::new(),
                silent: CancellationToken::new(),
            }),
        });
        let serving = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let _ = connection.set_nodelay(true);
                let inner = Arc::clone(&serving);
                let service = service_fn(move |request| Arc::clone(&inner).pass(request));
                tokio::spawn(async move {
                    // A connection that we break ourselves ends in an error, as it should.
                    let _ = hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(connection), service)
                        .await;
                });
            }
        });
        Self {
            inner,
            port,
            _task: AbortOnDropHandle::new(task),
        }
    }

    /// The address it listens on.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client that uses it.
    pub fn client(&self) -> Client {
        Client::try_from(Config::new(self.url().parse().unwrap())).unwrap()
    }

    /// A kubeconfig with which another process uses it.
    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url()}}],
            "users": [{"name": "anonymous", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "anonymous"}}],
        })
        .to_string()
    }

    /// From now on this decides about every request.
    pub fn rule(&self, rule: impl FnMut(&ProxiedRequest) -> Fault + Send + 'static) {
        self.inner.state().rule = Box::new(rule);
    }

    /// An outage begins, of running requests and of new ones.
    pub fn fail(&self, outage: ApiOutage) {
        let mut state = self.inner.state();
        state.outage = Some(outage);
        match outage {
            ApiOutage::Refused => std::mem::take(&mut state.broken).cancel(),
            ApiOutage::Silent => std::mem::take(&mut state.silent).cancel(),
        }
    }

    /// The outage ends.
    pub fn recover(&self) {
        self.inner.state().outage = None;
    }

    /// The requests since the last call.
    pub fn take_log(&self) -> Vec<ProxiedRequest> {
        std::mem::take(&mut self.inner.state().log)
    }
}

impl ProxyInner {
    fn state(&self) -> std::sync::MutexGuard<'_, ProxyState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(
        self: Arc<Self>,
        request: Request<Incoming>,
    ) -> Result<Response<Body>, ProxyError> {
        let seen = ProxiedRequest {
            method: request.method().clone(),
            path: request.uri().to_string(),
            at: Instant::now(),
        };
        let (fault, broken, silent) = {
            let mut state = self.state();
            state.log.push(seen.clone());
            let fault = match state.outage {
                Some(ApiOutage::Refused) => Fault::Refuse,
                Some(ApiOutage::Silent) => Fault::Hang,
                None => (state.rule)(&seen),
            };
            (fault, state.broken.clone(), state.silent.clone())
        };
        match fault {
            Fault::Refuse => return Err(broken_by_proxy()),
            Fault::Hang => return std::future::pending().await,
            Fault::Answer(code) => return Ok(injected(code)),
            Fault::Empty => return Ok(Response::new(whole(Bytes::new()))),
            Fault::Late(time) => sleep(time).await, // The injected delay.
            Fault::None | Fault::AnswerLost | Fault::Cut(_) | Fault::Stall(_) => {}
        }
        let connection = Connection {
            broken,
            silent,
            until: match fault {
                Fault::Cut(time) => Some((Instant::now() + time, End::Broken)),
                Fault::Stall(time) => Some((Instant::now() + time, End::Silent)),
                _ => None,
            },
        };
        let answer = tokio::select! {
            answer = self.forward(request) => answer?,
            end = connection.ends() => return end.happen().await,
        };
        if matches!(fault, Fault::AnswerLost) {
            return Err(broken_by_proxy());
        }
        Ok(answer.map(|body| connection.carry(body)))
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<kube::client::Body>, ProxyError> {
        let (parts, body) = request.into_parts();
        let body = body.collect().await?.to_bytes();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut onward = Request::builder().method(parts.method).uri(path);
        for (name, value) in &parts.headers {
            if ![
                AUTHORIZATION,
                CONNECTION,
                CONTENT_LENGTH,
                HOST,
                TRANSFER_ENCODING,
            ]
            .contains(name)
            {
                onward = onward.header(name, value);
            }
        }
        let onward = onward.body(kube::client::Body::from(body.to_vec()))?;
        let mut answer = self.server.send(onward).await?;
        answer.headers_mut().remove(CONNECTION);
        answer.headers_mut().remove(TRANSFER_ENCODING);
        Ok(answer)
    }
}

/// How a connection may end.
#[derive(Clone, Copy)]
enum End {
    Broken,
    Silent,
}

impl End {
    async fn happen<T>(self) -> Result<T, ProxyError> {
        match self {
            End::Broken => Err(broken_by_proxy()),
            End::Silent => std::future::pending().await,
        }
    }
}

/// One request on its way.
struct Connection {
    broken: CancellationToken,
    silent: CancellationToken,
    until: Option<(Instant, End)>,
}

impl Connection {
    async fn ends(&self) -> End {
        let later = async {
            match self.until {
                Some((at, end)) => {
                    // The injected fault has a time.
                    sleep_until(at).await;
                    end
                }
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.broken.cancelled() => End::Broken,
            () = self.silent.cancelled() => End::Silent,
            end = later => end,
        }
    }

    fn carry(self, body: kube::client::Body) -> Body {
        let frames = stream::unfold(
            (BodyStream::new(body), self),
            |(mut body, connection)| async move {
                let frame = tokio::select! {
                    biased;
                    end = connection.ends() => end.happen().await,
                    frame = body.next() => frame?.map_err(ProxyError::from),
                };
                Some((frame, (body, connection)))
            },
        );
        StreamBody::new(frames).boxed_unsync()
    }
}

fn broken_by_proxy() -> ProxyError {
    "broken by the proxy".into()
}

fn whole(bytes: Bytes) -> Body {
    let body = Full::new(bytes).map_err(|never: Infallible| match never {});
    body.boxed_unsync()
}

/// An answer as the API server words it.
fn injected(code: u16) -> Response<Body> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "injected by the proxy",
        "reason": match code { 409 => "Conflict", 410 => "Expired", 429 => "TooManyRequests", _ => "InternalError" },
    });
    let mut answer = Response::new(whole(Bytes::from(status.to_string())));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
    answer.headers_mut().insert(
        CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    answer
}
