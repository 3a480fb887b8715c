//! The manager on paused time, over a provisioner that answers by what its endpoint is called.

use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use streampress_crds::CheckedPipeline;
use streampress_crds::api::pipeline::CompressionPipeline;

use super::*;
use streampress_transport::Depth;

/// Makes everything; answers about depths by what the endpoint is called.
struct Endpoints {
    began: Instant,
    provided: AtomicU64,
    removals: AtomicU64,
}

/// After this a message is counted.
const LATE: Duration = Duration::from_secs(50);

impl Default for Endpoints {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            provided: AtomicU64::new(0),
            removals: AtomicU64::new(0),
        }
    }
}

#[async_trait]
impl Provisioner for Endpoints {
    async fn provide(
        &self,
        plan: &TransportPlan,
        _: Option<&AwsCredentials>,
    ) -> Result<ReadyTransport, Problem> {
        let is_dead = plan.endpoint.as_deref() == Some("http://dead");
        if is_dead || plan.namespace.starts_with("hangs") {
            std::future::pending::<()>().await;
        }
        let provided = self.provided.fetch_add(1, Ordering::Relaxed);
        let panics = plan.endpoint.as_deref() == Some("http://panics");
        assert!(!panics || provided > 0, "making panics");
        Ok(ReadyTransport::default())
    }

    async fn depths(&self, plan: &TransportPlan, _: Option<&AwsCredentials>) -> Depths {
        let known = Some(Depth::default());
        match plan.endpoint.as_deref() {
            Some("http://dumb") => Depths::default(),
            Some("http://panics") if self.provided.load(Ordering::Relaxed) < 3 => {
                panic!("reading panics")
            }
            Some("http://half") => Depths {
                files: known,
                ..Depths::default()
            },
            _ => Depths {
                files: known,
                chunks: known,
                receipts: known,
                dead: Some(0),
                dead_chunks: Some(0),
            },
        }
    }

    async fn contents(
        &self,
        plan: &TransportPlan,
        _: Option<&AwsCredentials>,
    ) -> Result<Contents, Problem> {
        match plan.endpoint.as_deref() {
            Some("http://dead") => std::future::pending().await,
            Some("http://panics") if self.began.elapsed() < LATE => panic!("counting panics"),
            Some("http://late") if self.began.elapsed() > LATE => {
                Ok(Contents::Filled(vec!["a message".into()]))
            }
            _ => Ok(Contents::Empty),
        }
    }

    async fn remove(
        &self,
        plan: &TransportPlan,
        _: DeletionPolicy,
        _: Option<&AwsCredentials>,
    ) -> Result<Vec<String>, Problem> {
        let is_dead = plan.endpoint.as_deref() == Some("http://dead");
        if is_dead || plan.namespace.starts_with("hangs") {
            std::future::pending::<()>().await;
        }
        // One call after another.
        sleep(Duration::from_secs(5)).await;
        let tried = self.removals.fetch_add(1, Ordering::Relaxed);
        let (reason, retry, fails) = match plan.endpoint.as_deref() {
            Some("http://busy") => (Reason::TransportFailed, Retry::Transient, tried == 0),
            Some("http://broken") => (Reason::TransportFailed, Retry::Transient, true),
            Some("http://panics") if tried == 0 => panic!("removing panics"),
            Some("http://closed") => (Reason::AccessDenied, Retry::AfterCorrection, true),
            _ => (Reason::Ready, Retry::Transient, false),
        };
        if fails {
            return Err(Problem {
                reason,
                message: "Deleting failed.".into(),
                retry,
            });
        }
        Ok(Vec::new())
    }
}

struct ManagerFixture {
    manager: TransportManager,
    endpoints: Arc<Endpoints>,
    notified: Arc<AtomicU64>,
}

impl ManagerFixture {
    fn new() -> Self {
        let (endpoints, notified) = (Arc::new(Endpoints::default()), Arc::default());
        let address = "http://127.0.0.1:1".parse().expect("an address");
        let client = Client::try_from(kube::Config::new(address)).expect("a client");
        let own = [
            "http://dead",
            "http://dumb",
            "http://half",
            "http://good",
            "http://busy",
            "http://broken",
            "http://closed",
            "http://late",
            "http://panics",
        ];
        let options = ManagerOptions {
            own_identity_endpoints: own.map(str::to_owned).into(),
            ..ManagerOptions::default()
        };
        let counted: Arc<AtomicU64> = Arc::clone(&notified);
        let notify = Arc::new(move |_: &str, _: &str| {
            counted.fetch_add(1, Ordering::Relaxed);
        });
        Self {
            manager: TransportManager::new(endpoints.clone(), client, options, notify),
            endpoints,
            notified,
        }
    }
}

fn plan(name: &str, endpoint: &str) -> TransportPlan {
    plan_in("n", name, endpoint)
}

fn plan_in(namespace: &str, name: &str, endpoint: &str) -> TransportPlan {
    let pipeline: CompressionPipeline = serde_json::from_value(serde_json::json!({
        "apiVersion": "streampress.dev/v1alpha1", "kind": "CompressionPipeline",
        "metadata": {"name": name, "namespace": namespace, "uid": name},
        "spec": {"aws": {"endpointURL": endpoint}, "volume": {"persistentVolumeClaim": {"claimName": "files"}}},
    }))
    .expect("a pipeline");
    let checked = CheckedPipeline::in_cluster(pipeline).expect("valid");
    TransportPlan::of(checked.pipeline(), checked.resolved())
}

#[tokio::test(start_paused = true)]
async fn queues_that_cannot_be_read_are_looked_up_again_for_ever_and_reported_once() {
    for endpoint in ["http://dumb", "http://half"] {
        let fixture = ManagerFixture::new();
        let plan = plan("a", endpoint);
        fixture.manager.maintain(&plan);
        sleep(Duration::from_secs(600)).await;
        let TransportState::Failed(problem) = fixture.manager.maintain(&plan).state else {
            panic!("{endpoint} counts as ready");
        };
        assert_eq!(problem.reason, Reason::DepthUnknown);
        let reported = fixture.notified.load(Ordering::Relaxed);
        sleep(Duration::from_secs(30 * 24 * 3600)).await;
        assert_eq!(
            fixture.notified.load(Ordering::Relaxed),
            reported,
            "{endpoint}"
        );
        // Every minute or so.
        let reads = fixture.endpoints.provided.load(Ordering::Relaxed);
        assert!((30_000..60_000).contains(&reads), "{reads} times");
    }
}

#[tokio::test(start_paused = true)]
async fn when_the_manager_is_dropped_nothing_is_made_any_more() {
    let fixture = ManagerFixture::new();
    fixture.manager.maintain(&plan("a", "http://dumb"));
    sleep(Duration::from_secs(600)).await;
    let made = || fixture.endpoints.provided.load(Ordering::Relaxed);
    let before = made();
    drop(fixture.manager);
    sleep(Duration::from_secs(600)).await;
    assert_eq!((before > 0, made()), (true, before));
}

#[tokio::test(start_paused = true)]
async fn a_part_that_was_deleted_is_looked_up_again_within_minutes() {
    let fixture = ManagerFixture::new();
    let plan = plan("a", "http://good");
    fixture.manager.maintain(&plan);
    sleep(Duration::from_secs(3600)).await;
    assert!(matches!(
        fixture.manager.maintain(&plan).state,
        TransportState::Ready(_)
    ));
    let reads = fixture.endpoints.provided.load(Ordering::Relaxed);
    assert!((11..=13).contains(&reads), "{reads} times in an hour");
}

#[tokio::test(start_paused = true)]
async fn endpoints_that_hang_delay_neither_other_pipelines_nor_their_removal() {
    let fixture = ManagerFixture::new();
    for number in 0..100 {
        fixture
            .manager
            .maintain(&plan(&format!("dead-{number}"), "http://dead"));
    }
    sleep(Duration::from_secs(1)).await;
    let good = plan("good", "http://good");
    fixture.manager.maintain(&good);
    sleep(Duration::from_secs(1)).await;
    assert!(matches!(
        fixture.manager.maintain(&good).state,
        TransportState::Ready(_)
    ));
    fixture.manager.remove(&good, DeletionPolicy::Delete);
    let dead = plan("dead-0", "http://dead");
    fixture.manager.remove(&dead, DeletionPolicy::Delete);
    sleep(Duration::from_secs(21)).await;
    assert_eq!(
        fixture.manager.remove(&good, DeletionPolicy::Delete),
        Removal::Done(Vec::new())
    );
    sleep(Duration::from_secs(30)).await;
    let Removal::InProgress(Some(problem)) = fixture.manager.remove(&dead, DeletionPolicy::Delete)
    else {
        panic!("it is not said why it takes long");
    };
    assert!(problem.contains("http://dead"), "{problem}");
    sleep(Duration::from_secs(900)).await;
    let Removal::Done(left) = fixture.manager.remove(&dead, DeletionPolicy::Delete) else {
        panic!("still waiting for an endpoint that hangs");
    };
    assert!(left[0].contains("may be left behind"), "{left:?}");
}

/// At the same endpoint, as the namespaces of one region are that name none: what hangs may be an account, a role or a proxy.
#[tokio::test(start_paused = true)]
async fn namespaces_whose_calls_hang_do_not_delay_those_of_another_by_a_second() {
    for namespaces in [1, 10] {
        let fixture = ManagerFixture::new();
        let hanging: Vec<_> = (0..50 * namespaces)
            .map(|number| {
                let namespace = format!("hangs-{}", number % namespaces);
                plan_in(&namespace, &format!("p{number}"), "http://good")
            })
            .collect();
        for plan in &hanging {
            fixture.manager.maintain(plan);
            fixture.manager.remove(
                &plan_in(&plan.namespace, &format!("r-{}", plan.name), "http://good"),
                DeletionPolicy::Delete,
            );
        }
        sleep(Duration::from_secs(1)).await;
        let (good, going) = (plan("good", "http://good"), plan("going", "http://good"));
        fixture.manager.maintain(&good);
        fixture.manager.remove(&going, DeletionPolicy::Delete);
        sleep(Duration::from_secs(1)).await;
        let state = fixture.manager.maintain(&good).state;
        assert!(matches!(state, TransportState::Ready(_)), "{state:?}");
        // Deleting takes five seconds.
        sleep(Duration::from_secs(5)).await;
        let removal = fixture.manager.remove(&going, DeletionPolicy::Delete);
        assert_eq!(removal, Removal::Done(Vec::new()));
    }
}

#[tokio::test(start_paused = true)]
async fn a_removal_that_fails_is_tried_until_its_deadline_and_one_that_is_refused_is_not() {
    let left = |what: &str| {
        Removal::Done(vec![format!(
            "n-{what}-{what}-files.fifo, n-{what}-{what}-files-dlq.fifo, n-{what}-{what}-chunks.fifo, n-{what}-{what}-chunks-dlq.fifo, n-{what}-{what}-receipts.fifo, n-{what}-{what}-receipts-dlq.fifo and n-{what}-{what}-stream may be left behind: Deleting failed."
        )])
    };
    for (what, after, wanted, tries) in [
        ("busy", 12, Removal::Done(Vec::new()), 2..3),
        ("broken", 1000, left("broken"), 5..100),
        ("closed", 6, left("closed"), 1..2),
    ] {
        let fixture = ManagerFixture::new();
        let plan = plan(what, &format!("http://{what}"));
        fixture.manager.remove(&plan, DeletionPolicy::Delete);
        sleep(Duration::from_secs(after)).await;
        assert_eq!(
            fixture.manager.remove(&plan, DeletionPolicy::Delete),
            wanted,
            "{what}"
        );
        let tried = fixture.endpoints.removals.load(Ordering::Relaxed);
        assert!(tries.contains(&tried), "{what}: {tried}");
    }
}

#[tokio::test(start_paused = true)]
async fn hundreds_that_are_removed_at_once_each_have_their_deadline() {
    let fixture = ManagerFixture::new();
    let plans: Vec<TransportPlan> = (0..200)
        .map(|number| plan(&format!("p{number}"), "http://good"))
        .collect();
    for plan in &plans {
        fixture.manager.remove(plan, DeletionPolicy::Delete);
    }
    sleep(Duration::from_secs(100)).await;
    for plan in &plans {
        assert_eq!(
            fixture.manager.remove(plan, DeletionPolicy::Delete),
            Removal::Done(Vec::new())
        );
    }
}

#[tokio::test(start_paused = true)]
async fn queues_are_deleted_only_once_they_were_seen_empty_for_a_minute() {
    let fixture = ManagerFixture::new();
    let plan = plan("good", "http://good");
    let remove = || fixture.manager.remove(&plan, DeletionPolicy::WhenEmpty);
    remove();
    sleep(Duration::from_secs(59)).await;
    assert_eq!(remove(), Removal::InProgress(None));
    assert_eq!(fixture.endpoints.removals.load(Ordering::Relaxed), 0);
    sleep(Duration::from_secs(20)).await;
    assert_eq!(remove(), Removal::Done(Vec::new()));
}

#[tokio::test(start_paused = true)]
async fn a_message_that_is_counted_late_keeps_all() {
    let fixture = ManagerFixture::new();
    let plan = plan("late", "http://late");
    let remove = || fixture.manager.remove(&plan, DeletionPolicy::WhenEmpty);
    remove();
    sleep(Duration::from_secs(120)).await;
    assert_eq!(remove(), Removal::Done(vec!["a message".into()]));
    assert_eq!(fixture.endpoints.removals.load(Ordering::Relaxed), 0);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_hangs_does_not_delay_a_deletion_for_ever() {
    let fixture = ManagerFixture::new();
    let plan = plan("dead", "http://dead");
    let remove = || fixture.manager.remove(&plan, DeletionPolicy::WhenEmpty);
    remove();
    sleep(Duration::from_secs(1000)).await;
    let Removal::Done(left) = remove() else {
        panic!("still waiting for an endpoint that hangs");
    };
    assert!(left[0].contains("may be left behind"), "{left:?}");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_panics_is_tried_again_and_holds_up_neither_the_pipeline_nor_its_deletion() {
    let fixture = ManagerFixture::new();
    let plan = plan("a", "http://panics");
    fixture.manager.maintain(&plan);
    sleep(Duration::from_millis(500)).await;
    let TransportState::Failed(problem) = fixture.manager.maintain(&plan).state else {
        panic!("the panic is not reported");
    };
    assert_eq!(
        (problem.reason, problem.retry),
        (Reason::TransportFailed, Retry::Transient)
    );
    sleep(Duration::from_secs(40)).await;
    let snapshot = fixture.manager.maintain(&plan);
    assert!(matches!(snapshot.state, TransportState::Ready(_)));
    assert_eq!(snapshot.depths.files, Some(Depth::default()));
    let remove = || fixture.manager.remove(&plan, DeletionPolicy::WhenEmpty);
    remove();
    sleep(Duration::from_secs(200)).await;
    assert_eq!(remove(), Removal::Done(Vec::new()));
    assert_eq!(fixture.endpoints.removals.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn what_is_known_of_the_same_queues_stays_while_a_changed_plan_is_carried_out() {
    let fixture = ManagerFixture::new();
    let mut plan = plan("a", "http://good");
    assert!(!fixture.manager.maintain(&plan).is_answered);
    sleep(Duration::from_secs(1)).await;
    assert!(fixture.manager.maintain(&plan).is_answered);
    plan.parts.stream.shards += 1;
    let changed = fixture.manager.maintain(&plan);
    assert!(matches!(changed.state, TransportState::Ready(_)));
    assert_eq!(changed.depths.files, Some(Depth::default()));
    assert!(!changed.is_answered);
    sleep(Duration::from_secs(1)).await;
    assert!(fixture.manager.maintain(&plan).is_answered);
}
