//! Stands between an operator and the API server: counts what passes, and does harm on request. It speaks plain HTTP to
//! the operator and is itself an ordinary client of the server.

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

type Harm = Box<dyn std::error::Error + Send + Sync>;
type Body = UnsyncBoxBody<Bytes, Harm>;
type Rule = Box<dyn FnMut(&Seen) -> Fault + Send>;

/// A request that came by.
#[derive(Clone, Debug)]
pub struct Seen {
    /// What it does.
    pub method: Method,
    /// What to, with the query.
    pub path: String,
    /// When.
    pub at: Instant,
}

impl Seen {
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

    /// Whether it is about who leads: slots are never posted or put by an operator.
    pub fn elects(&self) -> bool {
        self.path.contains("/leases")
            && (matches!(self.method, Method::POST | Method::PUT)
                || (self.method == Method::GET && self.path.contains("/leases/")))
    }

    /// Whether it changes an object.
    pub fn writes(&self) -> bool {
        self.method != Method::GET && !self.elects()
    }
}

/// What becomes of a request.
#[derive(Clone, Copy, Debug)]
pub enum Fault {
    /// It passes.
    None,
    /// The connection ends without an answer; the server never heard of it.
    Refuse,
    /// No answer, ever; the server never heard of it.
    Hang,
    /// The server does it, and its answer is lost.
    Deaf,
    /// The proxy answers with this status in the server's place.
    Answer(u16),
    /// The proxy answers that all is well and nothing is to be said, as a watch that ends at once.
    Nothing,
    /// It passes after so long.
    Late(Duration),
    /// It passes, and after so long the connection breaks.
    Cut(Duration),
    /// It passes, and after so long nothing more comes.
    Stall(Duration),
}

/// All connections at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outage {
    /// They break, and new ones do too.
    Refused,
    /// They are silent, and those of before stay so for ever.
    Silent,
}

/// The proxy; ends when dropped.
pub struct Proxy {
    inner: Arc<Inner>,
    port: u16,
    _task: AbortOnDropHandle<()>,
}

struct Inner {
    server: Client,
    state: Mutex<State>,
}

struct State {
    rule: Rule,
    log: Vec<Seen>,
    outage: Option<Outage>,
    /// What runs now breaks, or falls silent, when these are cancelled.
    broken: CancellationToken,
    silent: CancellationToken,
}

impl Proxy {
    /// In front of the API server of the kubeconfig. Everything passes.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inner = Arc::new(Inner {
            server: Client::try_default().await.expect("an API server"),
            state: Mutex::new(State {
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

    /// Where it listens.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// A client that goes through it.
    pub fn client(&self) -> Client {
        Client::try_from(Config::new(self.url().parse().unwrap())).unwrap()
    }

    /// A kubeconfig for another process to go through it.
    pub fn kubeconfig(&self) -> String {
        json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": self.url()}}],
            "users": [{"name": "nobody", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "nobody"}}],
        })
        .to_string()
    }

    /// From now on this decides about every request.
    pub fn rule(&self, rule: impl FnMut(&Seen) -> Fault + Send + 'static) {
        self.inner.state().rule = Box::new(rule);
    }

    /// An outage begins: of what runs, and of what is asked for.
    pub fn fail(&self, outage: Outage) {
        let mut state = self.inner.state();
        state.outage = Some(outage);
        match outage {
            Outage::Refused => std::mem::take(&mut state.broken).cancel(),
            Outage::Silent => std::mem::take(&mut state.silent).cancel(),
        }
    }

    /// The outage ends.
    pub fn recover(&self) {
        self.inner.state().outage = None;
    }

    /// What has come by since the last call.
    pub fn take_log(&self) -> Vec<Seen> {
        std::mem::take(&mut self.inner.state().log)
    }
}

impl Inner {
    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn pass(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Harm> {
        let seen = Seen {
            method: request.method().clone(),
            path: request.uri().to_string(),
            at: Instant::now(),
        };
        let (fault, broken, silent) = {
            let mut state = self.state();
            state.log.push(seen.clone());
            let fault = match state.outage {
                Some(Outage::Refused) => Fault::Refuse,
                Some(Outage::Silent) => Fault::Hang,
                None => (state.rule)(&seen),
            };
            (fault, state.broken.clone(), state.silent.clone())
        };
        match fault {
            Fault::Refuse => return Err(harm()),
            Fault::Hang => return std::future::pending().await,
            Fault::Answer(code) => return Ok(made_up(code)),
            Fault::Nothing => return Ok(Response::new(whole(Bytes::new()))),
            Fault::Late(time) => sleep(time).await,
            Fault::None | Fault::Deaf | Fault::Cut(_) | Fault::Stall(_) => {}
        }
        let line = Line {
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
            end = line.ends() => return end.happen().await,
        };
        if matches!(fault, Fault::Deaf) {
            return Err(harm());
        }
        Ok(answer.map(|body| line.carry(body)))
    }

    async fn forward(
        &self,
        request: Request<Incoming>,
    ) -> Result<Response<kube::client::Body>, Harm> {
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
    async fn happen<T>(self) -> Result<T, Harm> {
        match self {
            End::Broken => Err(harm()),
            End::Silent => std::future::pending().await,
        }
    }
}

/// One request's way there and back.
struct Line {
    broken: CancellationToken,
    silent: CancellationToken,
    until: Option<(Instant, End)>,
}

impl Line {
    async fn ends(&self) -> End {
        let later = async {
            match self.until {
                Some((at, end)) => {
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
            |(mut body, line)| async move {
                let frame = tokio::select! {
                    biased;
                    end = line.ends() => end.happen().await,
                    frame = body.next() => frame?.map_err(Harm::from),
                };
                Some((frame, (body, line)))
            },
        );
        StreamBody::new(frames).boxed_unsync()
    }
}

fn harm() -> Harm {
    "broken by the proxy".into()
}

fn whole(bytes: Bytes) -> Body {
    let body = Full::new(bytes).map_err(|never: Infallible| match never {});
    body.boxed_unsync()
}

/// An answer as the API server words it.
fn made_up(code: u16) -> Response<Body> {
    let status = json!({
        "apiVersion": "v1", "kind": "Status", "status": "Failure", "code": code, "message": "made up by the proxy",
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
