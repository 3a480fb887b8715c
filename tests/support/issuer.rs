//! Imitates the services that issue temporary credentials on AWS: STS for a web identity, a container's agent, an
//! instance's metadata. Each demands the token that it demands on AWS.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::{get, post, put};
use jiff::Timestamp;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// The content of a pod's token file.
pub const WEB_IDENTITY_TOKEN: &str = "web0identity0token0of0a0pod";
/// The token that a container sends to its agent.
pub const CONTAINER_TOKEN: &str = "authorization0token0of0a0container";
/// The session token of an instance's metadata service.
const METADATA_TOKEN: &str = "session0token0of0the0metadata";
const METADATA_TTL: &str = "x-aws-ec2-metadata-token-ttl-seconds";

/// A running server; dropping it stops it.
#[derive(Debug)]
pub struct CredentialIssuer {
    /// Where it listens. STS is at the root, the container's agent at `/container`.
    pub url: String,
    shared: Arc<IssuerShared>,
    server: JoinHandle<()>,
}

#[derive(Debug)]
struct IssuerShared {
    /// How long credentials are valid.
    valid_for: Duration,
    issued: AtomicU32,
}

/// Temporary credentials, different each time.
struct IssuedKeys {
    access_key: String,
    secret_key: String,
    session_token: String,
    expires: Timestamp,
}

type IssuerResponse = Result<String, StatusCode>;

/// STS's answer to an unknown identity.
const REFUSED: &str = "<ErrorResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><Error><Type>Sender</Type>\
     <Code>InvalidIdentityToken</Code><Message>No OpenIDConnect provider found in your account</Message></Error></ErrorResponse>";

impl CredentialIssuer {
    /// Starts one on a free port of the loopback.
    pub async fn start(valid_for: Duration) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let shared = Arc::new(IssuerShared {
            valid_for,
            issued: AtomicU32::new(0),
        });
        let roles = "/latest/meta-data/iam/security-credentials/";
        let router = Router::new()
            .route("/", post(assume_role))
            .route("/container", get(container))
            .route("/latest/api/token", put(metadata_token))
            .route(roles, get(metadata_roles))
            .route(&format!("{roles}role"), get(metadata_keys))
            .with_state(shared.clone());
        let server = tokio::spawn(async move {
            // Ends only when aborted.
            let _ = axum::serve(listener, router).await;
        });
        Self {
            url,
            shared,
            server,
        }
    }

    /// How many credentials it issued; they are numbered from 0.
    pub fn issued(&self) -> u32 {
        self.shared.issued.load(Ordering::SeqCst)
    }

    /// The access key id of the credentials with this number.
    pub fn access_key(number: u32) -> String {
        format!("ASIAISSUED{number}")
    }

    /// The session token of the credentials with this number.
    pub fn session_token(number: u32) -> String {
        format!("issued0session0token0{number}")
    }

    /// Every secret that must not be logged.
    pub fn secrets() -> Vec<String> {
        // Secret keys and session tokens begin so; a number follows.
        ["issued0secret0", "issued0session0token0"]
            .into_iter()
            .chain([WEB_IDENTITY_TOKEN, CONTAINER_TOKEN, METADATA_TOKEN])
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for CredentialIssuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

impl IssuerShared {
    fn issue(&self) -> IssuedKeys {
        let number = self.issued.fetch_add(1, Ordering::SeqCst);
        IssuedKeys {
            access_key: CredentialIssuer::access_key(number),
            secret_key: format!("issued0secret0{number}"),
            session_token: CredentialIssuer::session_token(number),
            expires: Timestamp::now() + self.valid_for,
        }
    }

    fn issue_json(&self) -> String {
        let keys = self.issue();
        json!({
            "Code": "Success", "LastUpdated": Timestamp::now(), "Type": "AWS-HMAC",
            "AccessKeyId": keys.access_key, "SecretAccessKey": keys.secret_key,
            "Token": keys.session_token, "Expiration": keys.expires,
        })
        .to_string()
    }
}

fn require(headers: &HeaderMap, name: &str, expected: &str) -> Result<(), StatusCode> {
    let sent = headers.get(name).is_some_and(|value| value == expected);
    sent.then_some(()).ok_or(StatusCode::FORBIDDEN)
}

async fn assume_role(
    State(shared): State<Arc<IssuerShared>>,
    form: String,
) -> Result<String, (StatusCode, &'static str)> {
    let fields: HashMap<&str, &str> = form
        .split('&')
        .filter_map(|field| field.split_once('='))
        .collect();
    let is = |name: &str, expected: &str| fields.get(name) == Some(&expected);
    if !is("Action", "AssumeRoleWithWebIdentity") || !is("WebIdentityToken", WEB_IDENTITY_TOKEN) {
        return Err((StatusCode::BAD_REQUEST, REFUSED));
    }
    let keys = shared.issue();
    Ok(format!(
        "<AssumeRoleWithWebIdentityResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\">\
         <AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>{}</AccessKeyId><SecretAccessKey>{}</SecretAccessKey>\
         <SessionToken>{}</SessionToken><Expiration>{}</Expiration></Credentials>\
         <AssumedRoleUser><AssumedRoleId>AROA:worker</AssumedRoleId>\
         <Arn>arn:aws:sts::000000000000:assumed-role/worker/worker</Arn></AssumedRoleUser>\
         </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>",
        keys.access_key, keys.secret_key, keys.session_token, keys.expires
    ))
}

async fn container(State(shared): State<Arc<IssuerShared>>, headers: HeaderMap) -> IssuerResponse {
    require(&headers, "authorization", CONTAINER_TOKEN)?;
    Ok(shared.issue_json())
}

async fn metadata_token(
    headers: HeaderMap,
) -> Result<([(&'static str, String); 1], &'static str), StatusCode> {
    let ttl = headers.get(METADATA_TTL).and_then(|ttl| ttl.to_str().ok());
    let ttl = ttl.ok_or(StatusCode::BAD_REQUEST)?.to_owned();
    Ok(([(METADATA_TTL, ttl)], METADATA_TOKEN))
}

async fn metadata_roles(headers: HeaderMap) -> IssuerResponse {
    require(&headers, "x-aws-ec2-metadata-token", METADATA_TOKEN)?;
    Ok("role".to_owned())
}

async fn metadata_keys(
    State(shared): State<Arc<IssuerShared>>,
    headers: HeaderMap,
) -> IssuerResponse {
    require(&headers, "x-aws-ec2-metadata-token", METADATA_TOKEN)?;
    Ok(shared.issue_json())
}
