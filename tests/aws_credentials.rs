//! The program's AWS credentials: every provider of the SDK's chain, the original's variables, and none at all. The fake
//! AWS records which access key signed the requests for queues, stream and bucket. No secret may appear in the program's
//! output at the most verbose log level.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use streampress_tests::aws::Cloud;
use streampress_tests::eventually_blocking;
use streampress_tests::fake_aws::Signer;
use streampress_tests::issuer::{CONTAINER_TOKEN, CredentialIssuer, WEB_IDENTITY_TOKEN};
use streampress_tests::sandbox::Sandbox;
use tokio::net::TcpListener;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const BUCKET: &str = "  report: {location: \"s3://bucket/results.html\"}";
const SECRET_KEY: &str = "secret0key0of0a0user";
const SESSION_TOKEN: &str = "session0token0of0a0user";
const HOUR: Duration = Duration::from_secs(3600);

/// A sandbox whose environment is these variables and the most verbose log.
fn sandbox(url: &str, variables: &[(&str, &str)]) -> Sandbox {
    // The second is a variable of the SDK.
    let verbose = [("RUST_LOG", "trace"), ("LOG_SENSITIVE_BODIES", "true")];
    let all = [variables, &verbose].concat();
    Sandbox::new(PROGRAM, url, "known", BUCKET).with_variables(&all)
}

fn assert_hides_secrets(output: &str) {
    let own = [SECRET_KEY, SESSION_TOKEN].map(str::to_owned);
    for secret in CredentialIssuer::secrets().into_iter().chain(own) {
        // Bytes may also be printed as numbers.
        let numbers = format!("{:?}", secret.as_bytes());
        for printed in [secret.as_str(), numbers.trim_matches(['[', ']'])] {
            let line = output.lines().find(|line| line.contains(printed));
            assert!(line.is_none(), "{secret} is in: {line:?}");
        }
    }
}

/// Uses queues, stream and bucket, and returns who signed the requests of each.
fn work(cloud: &Cloud, sandbox: &Sandbox) -> BTreeSet<Signer> {
    for args in [["setup", "pipeline.yaml"], ["report", "pipeline.yaml"]] {
        let (code, output) = run(sandbox, &args);
        assert_eq!(code, Some(0), "{args:?}: {output}");
    }
    let signers = cloud.fake_aws.signers();
    let services: BTreeSet<&str> = signers.iter().map(|it| it.service.as_str()).collect();
    assert_eq!(services, ["kinesis", "s3", "sqs"].into(), "{signers:?}");
    signers
}

/// Runs a command; its exit code and its whole output.
fn run(sandbox: &Sandbox, args: &[&str]) -> (Option<i32>, String) {
    let output = sandbox.run(args);
    let all = output.stdout + &output.stderr;
    assert!(all.contains("DEBUG"), "the log is not at its most verbose");
    assert_hides_secrets(&all);
    (output.code, all)
}

fn assert_keys(signers: &BTreeSet<Signer>, access_key: &str, session_token: Option<&str>) {
    for signer in signers {
        assert_eq!(signer.access_key, access_key, "{signers:?}");
        assert_eq!(signer.session_token.as_deref(), session_token);
    }
}

fn assert_issued(signers: &BTreeSet<Signer>, issuer: &CredentialIssuer) {
    for signer in signers {
        let is_its = |number: &u32| {
            signer.access_key == CredentialIssuer::access_key(*number)
                && signer.session_token == Some(CredentialIssuer::session_token(*number))
        };
        assert!((0..issuer.issued()).any(|n| is_its(&n)), "{signers:?}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_the_environment_sign_with_their_session_token() {
    let permanent = [
        ("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ];
    let temporary = [&permanent[..], &[("AWS_SESSION_TOKEN", SESSION_TOKEN)]].concat();
    for (variables, token) in [(&permanent[..], None), (&temporary, Some(SESSION_TOKEN))] {
        let cloud = Cloud::start().await;
        let signers = work(&cloud, &sandbox(&cloud.fake_aws.url, variables));
        assert_keys(&signers, "AKIAENVIRONMENT", token);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_originals_variables_sign_at_the_originals_endpoint() {
    let cloud = Cloud::start().await;
    let variables = [
        ("AWS_ACCESS_KEY", "AKIAORIGINAL"),
        ("AWS_SECRET_KEY", SECRET_KEY),
        ("AWS_ENDPOINT_OVERRIDE", &cloud.fake_aws.url),
    ];
    let signers = work(&cloud, &sandbox("http://elsewhere.invalid", &variables));
    assert_keys(&signers, "AKIAORIGINAL", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_signs_if_it_is_named_or_is_the_default() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = |key: &str| {
        format!(
            "aws_access_key_id = {key}\naws_secret_access_key = {SECRET_KEY}\naws_session_token = {SESSION_TOKEN}\n"
        )
    };
    let credentials = format!(
        "[default]\n{}[work]\n{}",
        keys("AKIADEFAULT"),
        keys("AKIAWORK")
    );
    // A credential process, as programs for single sign-on are.
    let printed = format!(
        "{{\"Version\":1,\"AccessKeyId\":\"AKIAPRINTED\",\"SecretAccessKey\":\"{SECRET_KEY}\",\"SessionToken\":\"{SESSION_TOKEN}\"}}"
    );
    let (home, config) = (folder.path(), folder.path().join("config"));
    let (named, printer) = (home.join("credentials"), home.join("printed.json"));
    std::fs::create_dir(home.join(".aws")).expect("created");
    for (path, content) in [
        (&named, &credentials),
        (&home.join(".aws/credentials"), &credentials),
        (&printer, &printed),
        (
            &config,
            &format!(
                "[profile printing]\ncredential_process = /bin/cat {}\n",
                text(&printer)
            ),
        ),
    ] {
        std::fs::write(path, content).expect("written");
    }
    let files = [
        ("AWS_SHARED_CREDENTIALS_FILE", text(&named)),
        ("AWS_CONFIG_FILE", text(&config)),
    ];
    let profile = |name| [&files[..], &[("AWS_PROFILE", name)]].concat();
    for (variables, key) in [
        (profile("work"), "AKIAWORK"),
        (profile("printing"), "AKIAPRINTED"),
        (vec![("HOME", text(home))], "AKIADEFAULT"),
    ] {
        let cloud = Cloud::start().await;
        let variables = [&variables[..], &[("PATH", "/usr/bin:/bin")]].concat();
        let signers = work(&cloud, &sandbox(&cloud.fake_aws.url, &variables));
        assert_keys(&signers, key, Some(SESSION_TOKEN));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_is_exchanged_for_keys_that_sign() {
    let (cloud, issuer) = (Cloud::start().await, CredentialIssuer::start(HOUR).await);
    let folder = tempfile::tempdir().expect("a folder");
    let token = web_identity(folder.path());
    let signers = work(
        &cloud,
        &sandbox(&cloud.fake_aws.url, &pod_variables(&token, &issuer)),
    );
    assert_issued(&signers, &issuer);
}

/// The token file of a pod.
fn web_identity(folder: &Path) -> String {
    let path = folder.join("token");
    std::fs::write(&path, WEB_IDENTITY_TOKEN).expect("written");
    text(&path).to_owned()
}

/// The environment of a pod whose service account has a role.
fn pod_variables<'a>(token: &'a str, issuer: &'a CredentialIssuer) -> [(&'a str, &'a str); 3] {
    [
        ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/worker"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
        ("AWS_ENDPOINT_URL_STS", &issuer.url),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_containers_token_is_exchanged_for_keys_that_sign() {
    let (cloud, issuer) = (Cloud::start().await, CredentialIssuer::start(HOUR).await);
    let agent = format!("{}/container", issuer.url);
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN),
    ];
    let signers = work(&cloud, &sandbox(&cloud.fake_aws.url, &variables));
    assert_issued(&signers, &issuer);
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_from_an_instances_metadata_sign() {
    let (cloud, issuer) = (Cloud::start().await, CredentialIssuer::start(HOUR).await);
    let signers = work(
        &cloud,
        &sandbox(&cloud.fake_aws.url, &instance_variables(&issuer.url)),
    );
    assert_issued(&signers, &issuer);
}

fn instance_variables(metadata: &str) -> [(&str, &str); 2] {
    [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata),
    ]
}

/// Every command that needs AWS ends with such an error.
fn assert_fails(sandbox: &Sandbox, error_is: impl Fn(&str) -> bool) {
    for args in [
        &["validate", "pipeline.yaml", "--live"][..],
        &["compress", "pipeline.yaml", "--aws"],
        &["report", "pipeline.yaml"],
    ] {
        let (code, output) = run(sandbox, args);
        let error = output.lines().last().unwrap_or_default();
        assert_eq!(code, Some(1), "{error}");
        assert!(error.starts_with("error: ") && error_is(error), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_credentials_the_error_names_the_variables_to_set() {
    let cloud = Cloud::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let metadata = format!("http://{}", silent.local_addr().expect("bound"));
    // A metadata service that accepts connections and never responds, as behind a firewall; or none at all.
    for variables in [&instance_variables(&metadata)[..], &[]] {
        assert_fails(&sandbox(&cloud.fake_aws.url, variables), |error| {
            error.contains("no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        });
    }
    assert!(cloud.fake_aws.signers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn refused_credentials_cause_an_error_with_the_reason() {
    let (cloud, issuer) = (Cloud::start().await, CredentialIssuer::start(HOUR).await);
    let folder = tempfile::tempdir().expect("a folder");
    let token = web_identity(folder.path());
    std::fs::write(&token, SESSION_TOKEN).expect("written");
    let refused = sandbox(&cloud.fake_aws.url, &pod_variables(&token, &issuer));
    assert_fails(&refused, |error| {
        error.contains("no AWS credentials") && error.contains("No OpenIDConnect provider found")
    });
    let config = folder.path().join("config");
    std::fs::write(&config, "[profile somewhere]\nregion = us-east-1\n").expect("written");
    let mistyped = [
        ("AWS_CONFIG_FILE", text(&config)),
        ("AWS_PROFILE", "smewhere"),
    ];
    assert_fails(&sandbox(&cloud.fake_aws.url, &mistyped), |error| {
        error.contains("no AWS credentials") && error.contains("AWS_PROFILE is \"smewhere\"")
    });
    assert!(cloud.fake_aws.signers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_continues_with_new_keys_when_its_first_expire() {
    let cloud = Cloud::start().await;
    let issuer = CredentialIssuer::start(Duration::from_secs(15)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let token = web_identity(folder.path());
    let sandbox = sandbox(&cloud.fake_aws.url, &pod_variables(&token, &issuer));
    work(&cloud, &sandbox);
    let before = issuer.issued();
    let compress = sandbox.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    let signed = |number: u32| {
        let signers = cloud.fake_aws.signers();
        let key = CredentialIssuer::access_key(number);
        signers.iter().any(|signer| signer.access_key == key)
    };
    eventually_blocking("it works with its first keys", || signed(before));
    eventually_blocking("it works with its second keys", || {
        // Ends its long polls sooner.
        cloud.fake_aws.advance(Duration::from_secs(1));
        signed(before + 1)
    });
    assert_issued(&cloud.fake_aws.signers(), &issuer);
    assert_hides_secrets(&compress.log());
    assert_eq!(compress.stop(), Some(0));
}
