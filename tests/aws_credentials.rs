//! Who the program is on AWS: every way of the SDK's chain, the original's variables, and nobody. The stand-in tells whose
//! access key signed, for queues, stream and bucket alike. Nothing secret may be in what the program says, at the most
//! talkative level of its log.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::{Duration, Instant};

use streampress_tests::aws::Cloud;
use streampress_tests::desk::{Desk, eventually};
use streampress_tests::fake_aws::Signer;
use streampress_tests::issuer::{CONTAINER_TOKEN, Issuer, WEB_IDENTITY_TOKEN};
use tokio::net::TcpListener;

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
const BUCKET: &str = "  report: {location: \"s3://bucket/results.html\"}";
const SECRET_KEY: &str = "secret0key0of0somebody";
const SESSION_TOKEN: &str = "session0token0of0somebody";
const HOUR: Duration = Duration::from_secs(3600);
/// Below what people take for a hang, far above what it takes.
const SOON: Duration = Duration::from_secs(20);

/// A desk of somebody whom only these variables make known, and whose log tells everything.
fn desk(url: &str, variables: &[(&str, &str)]) -> Desk {
    // The second is the SDK's own.
    let all = [("RUST_LOG", "trace"), ("LOG_SENSITIVE_BODIES", "true")];
    let talkative = [variables, &all].concat();
    Desk::new(PROGRAM, url, "known", BUCKET).known_by(&talkative)
}

fn assert_keeps_secrets(said: &str) {
    let own = [SECRET_KEY, SESSION_TOKEN].map(str::to_owned);
    for secret in Issuer::secrets().into_iter().chain(own) {
        // Bytes may also be shown as numbers.
        let numbers = format!("{:?}", secret.as_bytes());
        for shown in [secret.as_str(), numbers.trim_matches(['[', ']'])] {
            let line = said.lines().find(|line| line.contains(shown));
            assert!(line.is_none(), "{secret} is in: {line:?}");
        }
    }
}

/// Works with queues, stream and bucket; whose keys signed for which.
fn work(cloud: &Cloud, desk: &Desk) -> BTreeSet<Signer> {
    for args in [["setup", "pipeline.yaml"], ["report", "pipeline.yaml"]] {
        let (code, said) = run(desk, &args);
        assert_eq!(code, Some(0), "{args:?}: {said}");
    }
    let signers = cloud.fake_aws.signers();
    let services: BTreeSet<&str> = signers.iter().map(|it| it.service.as_str()).collect();
    assert_eq!(services, ["kinesis", "s3", "sqs"].into(), "{signers:?}");
    signers
}

/// How a command ended, and all that it said.
fn run(desk: &Desk, args: &[&str]) -> (Option<i32>, String) {
    let said = desk.run(args);
    let all = said.out + &said.err;
    assert!(all.contains("DEBUG"), "its log does not tell everything");
    assert_keeps_secrets(&all);
    (said.code, all)
}

fn assert_keys(signers: &BTreeSet<Signer>, access_key: &str, session_token: Option<&str>) {
    for signer in signers {
        assert_eq!(signer.access_key, access_key, "{signers:?}");
        assert_eq!(signer.session_token.as_deref(), session_token);
    }
}

fn assert_issued(signers: &BTreeSet<Signer>, issuer: &Issuer) {
    for signer in signers {
        let is_its = |number: &u32| {
            signer.access_key == Issuer::access_key(*number)
                && signer.session_token == Some(Issuer::session_token(*number))
        };
        assert!((0..issuer.issued()).any(|n| is_its(&n)), "{signers:?}");
    }
}

fn text(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

#[tokio::test(flavor = "multi_thread")]
async fn keys_in_the_environment_sign_with_the_token_that_goes_with_them() {
    let lasting = [
        ("AWS_ACCESS_KEY_ID", "AKIAENVIRONMENT"),
        ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
    ];
    let temporary = [&lasting[..], &[("AWS_SESSION_TOKEN", SESSION_TOKEN)]].concat();
    for (variables, token) in [(&lasting[..], None), (&temporary, Some(SESSION_TOKEN))] {
        let cloud = Cloud::start().await;
        let signers = work(&cloud, &desk(&cloud.fake_aws.url, variables));
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
    let signers = work(&cloud, &desk("http://elsewhere.invalid", &variables));
    assert_keys(&signers, "AKIAORIGINAL", None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_profile_signs_where_it_is_named_or_is_the_default() {
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
    // A program of the user's that prints keys, as those of single sign-on do.
    let printed = format!(
        "{{\"Version\":1,\"AccessKeyId\":\"AKIAPRINTED\",\"SecretAccessKey\":\"{SECRET_KEY}\",\"SessionToken\":\"{SESSION_TOKEN}\"}}"
    );
    let (home, config) = (folder.path(), folder.path().join("config"));
    let (named, printer) = (home.join("credentials"), home.join("printed.json"));
    std::fs::create_dir(home.join(".aws")).expect("made");
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
        let signers = work(&cloud, &desk(&cloud.fake_aws.url, &variables));
        assert_keys(&signers, key, Some(SESSION_TOKEN));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_web_identity_is_exchanged_for_keys_that_sign() {
    let (cloud, issuer) = (Cloud::start().await, Issuer::start(HOUR).await);
    let folder = tempfile::tempdir().expect("a folder");
    let token = web_identity(folder.path());
    let signers = work(
        &cloud,
        &desk(&cloud.fake_aws.url, &of_a_pod(&token, &issuer)),
    );
    assert_issued(&signers, &issuer);
}

/// The file that the cluster puts into a pod.
fn web_identity(folder: &Path) -> String {
    let path = folder.join("token");
    std::fs::write(&path, WEB_IDENTITY_TOKEN).expect("written");
    text(&path).to_owned()
}

/// What the cluster sets for a pod whose service account has a role.
fn of_a_pod<'a>(token: &'a str, issuer: &'a Issuer) -> [(&'a str, &'a str); 3] {
    [
        ("AWS_ROLE_ARN", "arn:aws:iam::000000000000:role/worker"),
        ("AWS_WEB_IDENTITY_TOKEN_FILE", token),
        ("AWS_ENDPOINT_URL_STS", &issuer.url),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_container_gets_keys_that_sign_for_its_token() {
    let (cloud, issuer) = (Cloud::start().await, Issuer::start(HOUR).await);
    let agent = format!("{}/container", issuer.url);
    let variables = [
        ("AWS_CONTAINER_CREDENTIALS_FULL_URI", agent.as_str()),
        ("AWS_CONTAINER_AUTHORIZATION_TOKEN", CONTAINER_TOKEN),
    ];
    let signers = work(&cloud, &desk(&cloud.fake_aws.url, &variables));
    assert_issued(&signers, &issuer);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_gets_keys_that_sign_from_its_metadata() {
    let (cloud, issuer) = (Cloud::start().await, Issuer::start(HOUR).await);
    let signers = work(
        &cloud,
        &desk(&cloud.fake_aws.url, &on_an_instance(&issuer.url)),
    );
    assert_issued(&signers, &issuer);
}

fn on_an_instance(metadata: &str) -> [(&str, &str); 2] {
    [
        ("AWS_EC2_METADATA_DISABLED", "false"),
        ("AWS_EC2_METADATA_SERVICE_ENDPOINT", metadata),
    ]
}

/// Ends every command that needs AWS with an error like this one, soon.
fn assert_fails_soon(desk: &Desk, error_is: impl Fn(&str) -> bool) {
    for args in [
        &["validate", "pipeline.yaml", "--live"][..],
        &["compress", "pipeline.yaml", "--aws"],
        &["report", "pipeline.yaml"],
    ] {
        let began = Instant::now();
        let (code, said) = run(desk, args);
        let (error, took) = (said.lines().last().unwrap_or_default(), began.elapsed());
        assert_eq!(code, Some(1), "{error}");
        assert!(error.starts_with("error: ") && error_is(error), "{error}");
        assert!(took < SOON, "{args:?} took {took:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nobody_is_told_soon_how_to_become_somebody() {
    let cloud = Cloud::start().await;
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let metadata = format!("http://{}", silent.local_addr().expect("bound"));
    // What is there takes connections and never answers, as behind a firewall; or nothing may be asked at all.
    for variables in [&on_an_instance(&metadata)[..], &[]] {
        assert_fails_soon(&desk(&cloud.fake_aws.url, variables), |error| {
            error.contains("no AWS credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
        });
    }
    assert!(cloud.fake_aws.signers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn somebody_who_is_refused_is_told_why() {
    let (cloud, issuer) = (Cloud::start().await, Issuer::start(HOUR).await);
    let folder = tempfile::tempdir().expect("a folder");
    let token = web_identity(folder.path());
    std::fs::write(&token, SESSION_TOKEN).expect("written");
    let refused = desk(&cloud.fake_aws.url, &of_a_pod(&token, &issuer));
    assert_fails_soon(&refused, |error| {
        error.contains("no AWS credentials") && error.contains("No OpenIDConnect provider found")
    });
    let config = folder.path().join("config");
    std::fs::write(&config, "[profile somewhere]\nregion = us-east-1\n").expect("written");
    let mistyped = [
        ("AWS_CONFIG_FILE", text(&config)),
        ("AWS_PROFILE", "smewhere"),
    ];
    assert_fails_soon(&desk(&cloud.fake_aws.url, &mistyped), |error| {
        error.contains("no AWS credentials") && error.contains("AWS_PROFILE is \"smewhere\"")
    });
    assert!(cloud.fake_aws.signers().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_goes_on_with_new_keys_when_its_first_end() {
    let cloud = Cloud::start().await;
    let issuer = Issuer::start(Duration::from_secs(15)).await;
    let folder = tempfile::tempdir().expect("a folder");
    let token = web_identity(folder.path());
    let desk = desk(&cloud.fake_aws.url, &of_a_pod(&token, &issuer));
    work(&cloud, &desk);
    let before = issuer.issued();
    let compress = desk.start("compress.log", &["compress", "pipeline.yaml", "--aws"]);
    let signed = |number: u32| {
        let signers = cloud.fake_aws.signers();
        let key = Issuer::access_key(number);
        signers.iter().any(|signer| signer.access_key == key)
    };
    eventually("it works with its first keys", || {
        signed(before).then_some(())
    });
    eventually("it works with its second keys", || {
        // Its long polls end sooner.
        cloud.fake_aws.advance(Duration::from_secs(1));
        signed(before + 1).then_some(())
    });
    assert_issued(&cloud.fake_aws.signers(), &issuer);
    assert_keeps_secrets(&compress.log());
    assert_eq!(compress.stop(), Some(0));
}
