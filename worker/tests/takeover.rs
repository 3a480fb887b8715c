//! Slots move between real processes that are killed, frozen and terminated while they work: compressors and decompressors
//! with slots on a real API server, and queues and stream in a folder they share. No file may be lost, altered or restored
//! twice, no two processes may hold the same slot, and every source is deleted once it was restored.
//! `tests/cluster up --control-plane`, then `tests/cluster exec cargo test -p streampress --features cluster --test takeover`.
#![expect(clippy::unwrap_used, reason = "tests end by panicking")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant, UNIX_EPOCH};

use async_trait::async_trait;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::PostParams;
use kube::{Api, Client};
use rustix::process::{Pid, Signal, kill_process};
use rustix::time::{ClockId, clock_gettime};
use streampress::journal::SqliteJournal;
use streampress::roles::connect::{Backend, local_locks};
use streampress::roles::context::RoleContext;
use streampress::telemetry::metrics::Meter;
use streampress_crds::names;
use streampress_crds::settings::Resolved;
use streampress_transport::lease::{LeaseLock, RoleSlots, Times};
use streampress_transport::local::{Local, LocalOptions};
use streampress_transport::slot_lock::HolderRequest;
use streampress_transport::{
    FileName, Ledger, SharedLedger, SlotGuard, SlotLock, SlotLocks, TransportResult,
};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

/// As short as a Lease's whole seconds allow.
const FAST: Times = Times {
    lease: Duration::from_secs(1),
    deadline: Duration::from_millis(700),
    period: Duration::from_millis(200),
};
/// A test that waits so long hangs; it then shows the processes' logs, which the test runner could not.
const HANG: Duration = Duration::from_secs(600);
const ROLES: [&str; 2] = ["compressor", "decompressor"];
const CONTENDERS: usize = 3;
const ROLE: &str = "STREAMPRESS_TEST_ROLE";
const DIR: &str = "STREAMPRESS_TEST_DIR";
const POD: &str = "STREAMPRESS_TEST_POD";
const PIPELINE: &str = "STREAMPRESS_TEST_PIPELINE";
const DEFAULT_TIMES: &str = "STREAMPRESS_TEST_DEFAULT_TIMES";

fn resolved() -> Resolved {
    let text = "\
apiVersion: streampress.dev/v1alpha1
kind: CompressionPipeline
metadata: {name: takeover}
spec:
  source: {location: 'file:///data/in', onRestored: Delete, writersRename: true}
  destination: {location: 'file:///data/out'}
  report: {enabled: false}
  codec: {effort: Fast}
";
    let (pipeline, _) = streampress_crds::load_one(text, "takeover.yaml").unwrap();
    pipeline.into_parts().1
}

/// The folder's transport. Messages of a frozen process are redelivered soon.
fn open(dir: &Path) -> Local {
    let options = LocalOptions {
        visibility_timeout: Duration::from_secs(3),
        max_receive_count: 10_000,
        ..LocalOptions::default()
    };
    Local::open(&dir.join("data"), options).unwrap()
}

fn context(
    dir: &Path,
    local: &Local,
    locks: Option<SlotLocks>,
    shutdown: &CancellationToken,
) -> RoleContext {
    RoleContext {
        backend: Backend::Embedded(local.clone()),
        locks: locks.unwrap_or_else(|| local_locks(local)),
        destination_journal: Some(SqliteJournal::open(local).unwrap()),
        journal: Arc::new(SqliteJournal::open(local).unwrap()),
        data: dir.join("data"),
        threads: 1,
        meter: Meter::default(),
        shutdown: shutdown.clone(),
    }
}

/// The main function of the started processes; as an ordinary test it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_contender() {
    let Ok(role) = std::env::var(ROLE) else {
        return;
    };
    let targets: Targets = "info,streampress=debug".parse().unwrap();
    let lines = tracing_subscriber::fmt::layer().with_ansi(false);
    tracing_subscriber::registry()
        .with(lines.with_filter(targets))
        .init();
    let dir = PathBuf::from(std::env::var(DIR).unwrap());
    let (pod, pipeline) = (
        std::env::var(POD).unwrap(),
        std::env::var(PIPELINE).unwrap(),
    );
    let times = if std::env::var(DEFAULT_TIMES).is_ok() {
        Times::default()
    } else {
        FAST
    };
    let shutdown = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate()).unwrap();
    let stop = shutdown.clone();
    tokio::spawn(async move {
        terminate.recv().await;
        stop.cancel();
    });
    let client = Client::try_default().await.unwrap();
    let beliefs = dir.join("beliefs");
    let locks: SlotLocks = Arc::new(move |role, slots| {
        let slots = RoleSlots::new(&pipeline, role.parse().unwrap(), slots);
        Arc::new(Watched {
            lock: LeaseLock::new(client.clone(), "default", slots, &pod, times),
            beliefs: beliefs.clone(),
        })
    });
    let local = open(&dir);
    let (context, resolved) = (context(&dir, &local, Some(locks), &shutdown), resolved());
    let consumer = match role.as_str() {
        "compressor" => {
            let settings = resolved.compressor_settings();
            let connections = context.backend.compressor(&settings).await.unwrap();
            context
                .compressor(&settings, connections, None, None)
                .unwrap()
        }
        _ => {
            let settings = resolved.decompressor_settings();
            let connections = context.backend.decompressor(&settings).await.unwrap();
            context.decompressor(&settings, connections, None).unwrap()
        }
    };
    consumer.run().await;
}

/// A lock whose holders record when they hold their slot.
#[derive(Debug)]
struct Watched {
    lock: LeaseLock,
    beliefs: PathBuf,
}

#[async_trait]
impl SlotLock for Watched {
    async fn try_acquire(&self) -> TransportResult<Option<SlotGuard>> {
        let held = self.lock.try_acquire().await?;
        Ok(held.map(|held| believe(held, &self.beliefs)))
    }

    async fn all_held_by_others(&self) -> TransportResult<bool> {
        self.lock.all_held_by_others().await
    }

    async fn ledger(&self) -> TransportResult<Ledger> {
        self.lock.ledger().await
    }
}

/// Wraps the slot: as long as its user may act, a thread records the time a thousand times a second, in a file that
/// outlives the process.
fn believe(held: SlotGuard, folder: &Path) -> SlotGuard {
    let file = File::create_new(folder.join(held.attempt()))
        .expect("no two holdings have the same attempt");
    let over = Arc::new(AtomicBool::new(false));
    let held = Arc::new(held);
    let (asked, ended) = (Arc::clone(&held), over.clone());
    let ticking = std::thread::spawn(move || {
        let (mut first, mut last, mut spans) = (0, 0, 0);
        while asked.ensure_owner() && !ended.load(Ordering::SeqCst) {
            let now = monotonic_nanos();
            // A gap is a time in which this process did nothing at all.
            if spans == 0 || now - last > 50_000_000 {
                (first, spans) = (now, spans + 1);
            }
            last = now;
            let span = [first.to_le_bytes(), last.to_le_bytes()].concat();
            file.write_all_at(&span, (spans - 1) * 16).unwrap();
            // Between two marks: a longer gap is a time in which the process did not run.
            std::thread::sleep(Duration::from_millis(1));
        }
    });
    let ledger = SharedLedger::new(held.ledger());
    let (requests, mut requested) = mpsc::channel(4);
    let outer = SlotGuard::new(
        held.slot().to_owned(),
        held.attempt().to_owned(),
        held.lost().clone(),
        ledger.clone(),
        requests,
    );
    tokio::spawn(async move {
        let mut answer = None;
        while let Some(request) = requested.recv().await {
            held.count(|inner| *inner = ledger.get());
            match request {
                HolderRequest::Flush(answer) => drop(answer.send(held.flush().await)),
                HolderRequest::Release(last) => {
                    answer = Some(last);
                    break;
                }
            }
        }
        over.store(true, Ordering::SeqCst);
        tokio::task::spawn_blocking(move || ticking.join())
            .await
            .unwrap()
            .unwrap();
        let released = Arc::into_inner(held).unwrap().release().await;
        if let Some(answer) = answer {
            let _ = answer.send(released);
        }
    });
    outer
}

/// The same clock for all processes; it does not stop for a frozen one.
fn monotonic_nanos() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec).unwrap() * 1_000_000_000 + u64::try_from(now.tv_nsec).unwrap()
}

/// A process that works in a role while it holds the slot.
struct Contender {
    pod: String,
    process: Child,
}

impl Contender {
    fn start(dir: &Path, pipeline: &str, role: &str, times: Times) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let pod = format!("pod-{}", NEXT.fetch_add(1, Ordering::Relaxed));
        let said = File::create(dir.join(format!("{role}-{pod}.log"))).unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command
            .args(["--exact", "a_contender", "--nocapture"])
            .envs([(ROLE, role), (POD, &pod), (PIPELINE, pipeline)])
            .env(DIR, dir)
            .stdin(Stdio::null())
            .stdout(said.try_clone().unwrap())
            .stderr(said);
        if times.lease > FAST.lease {
            command.env(DEFAULT_TIMES, "1");
        }
        Self {
            pod,
            process: command.spawn().unwrap(),
        }
    }

    fn signal(&self, signal: Signal) {
        signal_to(&self.process, signal);
    }
}

fn signal_to(process: &Child, signal: Signal) {
    let pid = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
    kill_process(pid, signal).unwrap();
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How a holder is disturbed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Blow {
    /// kill -9.
    Kill,
    /// SIGSTOP for longer than its lease, then SIGCONT.
    Freeze,
    /// SIGTERM: it releases its message, then the slot.
    End,
}

const ALL: [Blow; 4] = [Blow::Kill, Blow::Kill, Blow::Freeze, Blow::End];

/// One slot, its contenders, and what was observed.
struct Arena {
    dir: PathBuf,
    local: Local,
    pipeline: String,
    role: &'static str,
    times: Times,
    leases: Api<Lease>,
    contenders: Vec<Contender>,
    random: fastrand::Rng,
    /// Disturbances, and the time until another process held the slot.
    blows: Vec<(Blow, Duration)>,
}

impl Arena {
    async fn new(
        dir: &Path,
        local: &Local,
        pipeline: &str,
        role: &'static str,
        times: Times,
        client: Client,
    ) -> Self {
        let leases: Api<Lease> = Api::namespaced(client, "default");
        let labels = [
            (names::COMPONENT, role),
            (names::INSTANCE, pipeline),
            ("app.kubernetes.io/name", "streampress"),
        ];
        let labels = labels.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(format!("{pipeline}-{role}-0")),
                labels: Some(labels.into()),
                ..ObjectMeta::default()
            },
            spec: None,
        };
        leases.create(&PostParams::default(), &lease).await.unwrap();
        let contenders = (0..CONTENDERS)
            .map(|_| Contender::start(dir, pipeline, role, times))
            .collect();
        Self {
            dir: dir.to_owned(),
            local: local.clone(),
            pipeline: pipeline.to_owned(),
            role,
            times,
            leases,
            contenders,
            random: fastrand::Rng::with_seed(42),
            blows: Vec::new(),
        }
    }

    /// The first holder after so many transitions, and their number then.
    async fn holder_after(&self, transitions: i32) -> (usize, i32) {
        let began = Instant::now();
        loop {
            let lease = self
                .leases
                .get(&format!("{}-{}-0", self.pipeline, self.role))
                .await
                .unwrap();
            let spec = lease.spec.unwrap_or_default();
            let now = spec.lease_transitions.unwrap_or(0);
            let holder = spec.holder_identity.unwrap_or_default();
            let pod = holder.split('_').next().unwrap_or_default();
            if let Some(place) = self
                .contenders
                .iter()
                .position(|contender| contender.pod == pod)
                && now > transitions
            {
                return (place, now);
            }
            if began.elapsed() > HANG {
                self.explain(transitions).await;
            }
            // Between two reads of the Lease.
            sleep(Duration::from_millis(10)).await;
        }
    }

    /// No process took the slot: ends the test with all that is known of the cause.
    async fn explain(&self, transitions: i32) -> ! {
        let name = format!("{}-{}-0", self.pipeline, self.role);
        let lease = self.leases.get(&name).await.map(|lease| lease.spec);
        let pods: Vec<&str> = self.contenders.iter().map(|c| c.pod.as_str()).collect();
        panic!(
            "no process takes the {}'s slot after transition {transitions}; contenders {pods:?}; Lease {lease:?}; \
             files waiting {:?}; manifests waiting {:?}; the processes' logs: {}",
            self.role,
            self.local.files_queue().depth().await,
            self.local.chunks_queue().depth().await,
            logs(&self.dir)
        );
    }

    /// So many takeovers.
    async fn fight(&mut self, cycles: usize, blows: &[Blow]) {
        let mut transitions = 0;
        let mut last: Option<(Blow, Instant)> = None;
        for _ in 0..cycles {
            let (holder, now) = self.holder_after(transitions).await;
            if let Some((blow, at)) = last.take() {
                self.blows.push((blow, at.elapsed()));
            }
            transitions = now;
            // The moment of the blow is what is varied.
            sleep(Duration::from_millis(self.random.u64(0..400))).await;
            let blow = blows[self.random.usize(0..blows.len())];
            self.strike(holder, blow);
            last = Some((blow, Instant::now()));
        }
        let (_, _) = self.holder_after(transitions).await;
        if let Some((blow, at)) = last {
            self.blows.push((blow, at.elapsed()));
        }
    }

    fn strike(&mut self, holder: usize, blow: Blow) {
        match blow {
            Blow::Kill => drop(self.replace(holder)),
            Blow::End => {
                let mut ending = self.replace(holder);
                ending.signal(Signal::TERM);
                std::thread::spawn(move || ending.process.wait());
            }
            Blow::Freeze => {
                let pid =
                    Pid::from_raw(i32::try_from(self.contenders[holder].process.id()).unwrap())
                        .unwrap();
                kill_process(pid, Signal::STOP).unwrap();
                let time = self.times.lease + Duration::from_millis(self.random.u64(300..2000));
                tokio::spawn(async move {
                    // How long it is frozen.
                    sleep(time).await;
                    // It may have been killed in the meantime.
                    let _ = kill_process(pid, Signal::CONT);
                });
            }
        }
    }

    fn replace(&mut self, holder: usize) -> Contender {
        let next = Contender::start(&self.dir, &self.pipeline, self.role, self.times);
        std::mem::replace(&mut self.contenders[holder], next)
    }
}

/// Keeps the queue filled with small files until stopped; returns each file's content.
async fn feed(dir: PathBuf, local: Local, stop: CancellationToken) -> BTreeMap<String, Vec<u8>> {
    let announcer = context(&dir, &local, None, &stop)
        .announcer(&resolved().compressor_settings(), local.files_queue())
        .unwrap();
    let mut random = fastrand::Rng::with_seed(1);
    let mut made = BTreeMap::new();
    while !stop.is_cancelled() {
        let waiting = local.files_queue().depth().await.unwrap();
        if waiting.visible + waiting.in_flight > 20 {
            // Between two counts of a queue that is full.
            sleep(Duration::from_millis(20)).await;
            continue;
        }
        let name = format!("file-{:05}.txt", made.len());
        let lines = random.usize(1..200);
        let text: String = (0..lines)
            .map(|line| format!("{line} {}\n", random.u64(..)))
            .collect();
        let file_name = FileName::parse(&name).unwrap();
        let mut pending = announcer.source.create(&file_name).unwrap();
        pending.write_all(text.as_bytes()).unwrap();
        // At random: no order follows from the times of files.
        let modified = Duration::from_secs(random.u64(1_000_000_000..2_000_000_000));
        pending.commit(UNIX_EPOCH + modified).unwrap();
        let entry = announcer.source.stat(&file_name).unwrap().unwrap();
        announcer.announce(&entry).await.unwrap();
        made.insert(name, text.into_bytes());
    }
    made
}

/// Restored files as first seen: a second restoring would replace the file by another one.
async fn watch_restored(
    dir: PathBuf,
    stop: CancellationToken,
) -> (BTreeMap<String, u64>, BTreeSet<String>) {
    let (mut seen, mut replaced) = (BTreeMap::new(), BTreeSet::new());
    loop {
        let last = stop.is_cancelled();
        for entry in fs::read_dir(dir.join("data/out"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let name = entry.file_name().into_string().unwrap();
            let Ok(meta) = entry.metadata() else { continue };
            if *seen.entry(name.clone()).or_insert(meta.ino()) != meta.ino() {
                replaced.insert(name);
            }
        }
        if last {
            seen.retain(|name, _| name.starts_with("file-"));
            return (seen, replaced);
        }
        // Between two checks.
        sleep(Duration::from_millis(100)).await;
    }
}

/// The spans of time, in nanoseconds, in which each holder believed that it held its slot.
fn beliefs(dir: &Path) -> BTreeMap<String, Vec<(u64, u64)>> {
    let files = fs::read_dir(dir.join("beliefs")).unwrap();
    files
        .map(|file| {
            let file = file.unwrap();
            let number = |bytes: &[u8]| u64::from_le_bytes(bytes.try_into().unwrap());
            let spans = fs::read(file.path()).unwrap();
            let spans = spans
                .chunks_exact(16)
                .map(|span| (number(&span[..8]), number(&span[8..])))
                .collect();
            (file.file_name().into_string().unwrap(), spans)
        })
        .collect()
}

/// What two holdings of one slot share.
#[derive(Debug, Default)]
struct Overlap {
    /// Nanoseconds, in which both believed.
    nanos: u64,
    /// Of these, without any freezing.
    awake_nanos: u64,
    /// Times that a process used its slot after it had been frozen, while another process held it.
    late: usize,
}

fn overlap(beliefs: &BTreeMap<String, Vec<(u64, u64)>>) -> Overlap {
    let slot = |attempt: &str| attempt.split('.').next().unwrap_or_default().to_owned();
    let spans: Vec<(String, &String, usize, u64, u64)> = beliefs
        .iter()
        .flat_map(|(attempt, spans)| {
            spans
                .iter()
                .enumerate()
                .map(move |(place, (from, to))| (slot(attempt), attempt, place, *from, *to))
        })
        .collect();
    let mut overlap = Overlap::default();
    for (slot, attempt, place, from, to) in &spans {
        for (other_slot, other, other_place, other_from, other_to) in &spans {
            if slot == other_slot && attempt != other && other_from <= to && from <= other_to {
                // Each pair is met twice.
                let shared = (to.min(other_to) - from.max(other_from)) / 2;
                overlap.nanos += shared;
                if *place == 0 && *other_place == 0 {
                    overlap.awake_nanos += shared;
                }
                overlap.late += usize::from(*place > 0);
            }
        }
    }
    overlap
}

/// So many takeovers in all, over `sites` pipelines of two roles each.
async fn takeovers(cycles: usize, sites: usize, times: Times, blows: &'static [Blow]) {
    let client = Client::try_default()
        .await
        .expect("an API server: run this inside `tests/cluster exec`");
    let began = Instant::now();
    let mut at_work = tokio::task::JoinSet::new();
    for number in 0..sites {
        let (client, pipeline) = (
            client.clone(),
            format!(
                "takeover-{}-{}-{number}",
                std::process::id(),
                times.lease.as_secs()
            ),
        );
        at_work.spawn(async move {
            one_pipeline(client, pipeline, cycles / sites / ROLES.len(), times, blows).await
        });
    }
    let (mut files, mut holdings, mut waits) = (0, 0, BTreeMap::<Blow, Vec<Duration>>::new());
    let mut shared = Overlap::default();
    for site in at_work.join_all().await {
        files += site.files;
        holdings += site.holdings;
        shared.nanos += site.overlap.nanos;
        shared.awake_nanos += site.overlap.awake_nanos;
        shared.late += site.overlap.late;
        for (blow, took) in site.blows {
            waits.entry(blow).or_default().push(took);
        }
    }
    println!(
        "{holdings} holdings, {files} files restored once and identical, in {:?}",
        began.elapsed()
    );
    println!(
        "two believed in the same slot for {} ns in all, {} ns of it without freezing; a frozen process read the slot once more {} times",
        shared.nanos, shared.awake_nanos, shared.late
    );
    for (blow, mut took) in waits {
        took.sort();
        println!(
            "{blow:?}: {} times, followed after {:?} (median), {:?} (longest)",
            took.len(),
            took[took.len() / 2],
            took[took.len() - 1]
        );
    }
}

/// The result of one pipeline.
struct TakeoverOutcome {
    files: usize,
    holdings: usize,
    overlap: Overlap,
    blows: Vec<(Blow, Duration)>,
}

async fn one_pipeline(
    client: Client,
    pipeline: String,
    cycles: usize,
    times: Times,
    blows: &[Blow],
) -> TakeoverOutcome {
    let dir = tempfile::tempdir().unwrap();
    let dir = dir.path();
    for folder in ["beliefs", "data/in", "data/out"] {
        fs::create_dir_all(dir.join(folder)).unwrap();
    }
    let local = open(dir);
    let (enough, all_done) = (CancellationToken::new(), CancellationToken::new());
    let mut feeding = tokio::spawn(feed(dir.to_owned(), local.clone(), enough.clone()));
    let watching = tokio::spawn(watch_restored(dir.to_owned(), all_done.clone()));
    let mut arenas = Vec::new();
    for role in ROLES {
        arenas.push(Arena::new(dir, &local, &pipeline, role, times, client.clone()).await);
    }
    let fights =
        futures::future::join_all(arenas.iter_mut().map(|arena| arena.fight(cycles, blows)));
    // Without new files no process would take a slot.
    tokio::select! {
        _ = fights => {}
        ended = &mut feeding => panic!("no more files come: {:?}", ended.map(|made| made.len())),
    }
    enough.cancel();
    let made = feeding.await.unwrap();
    let began = Instant::now();
    let restored = || {
        made.keys()
            .all(|name| dir.join("data/out").join(name).exists())
    };
    while !restored() {
        assert!(
            began.elapsed() < HANG,
            "files were lost; the processes' logs: {}",
            logs(dir)
        );
        // Between two checks.
        sleep(Duration::from_millis(100)).await;
    }
    // A frozen process that continues has the time to do its harm.
    sleep(Duration::from_secs(4)).await;
    all_done.cancel();
    let (seen, replaced) = watching.await.unwrap();
    for (name, text) in &made {
        assert!(
            fs::read(dir.join("data/out").join(name)).unwrap() == *text,
            "{name} was altered"
        );
    }
    assert_eq!(seen.len(), made.len());
    let left = || fs::read_dir(dir.join("data/in")).unwrap().flatten();
    while left().any(|entry| entry.file_name().to_string_lossy().starts_with("file-")) {
        assert!(
            began.elapsed() < HANG,
            "restored files are not deleted; the processes' logs: {}",
            logs(dir)
        );
        // Between two checks.
        sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(replaced, BTreeSet::new(), "files were restored twice");
    for queue in [local.files_queue(), local.chunks_queue()] {
        assert_eq!(
            queue.dead_letters().unwrap().depth().await.unwrap().visible,
            0
        );
    }
    let beliefs = beliefs(dir);
    let overlap = overlap(&beliefs);
    TakeoverOutcome {
        files: made.len(),
        holdings: beliefs.len(),
        overlap,
        blows: arenas
            .iter_mut()
            .flat_map(|arena| std::mem::take(&mut arena.blows))
            .collect(),
    }
}

fn logs(dir: &Path) -> String {
    let files = fs::read_dir(dir)
        .unwrap()
        .flatten()
        .map(|entry| entry.path());
    let logs = files.filter(|path| path.extension().is_some_and(|extension| extension == "log"));
    logs.map(|path| {
        let said = fs::read_to_string(&path).unwrap_or_default();
        format!("--- {}\n{said}", path.display())
    })
    .collect::<Vec<_>>()
    .join("\n")
}

#[tokio::test(flavor = "multi_thread")]
async fn slots_change_holders_without_loss_or_overlap() {
    takeovers(32, 1, FAST, &ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn slots_change_holders_a_thousand_times_without_loss_or_overlap() {
    takeovers(1000, 2, FAST, &ALL).await;
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "takes minutes"]
async fn slots_change_holders_with_the_times_of_production() {
    takeovers(12, 1, Times::default(), &[Blow::Kill, Blow::End]).await;
}
