//! Several processes in one folder, and processes that are killed. This test program starts itself again for each
//! of them, with the task in an environment variable.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crate::contract_tests::eventually;
use crate::contract_tests::queue::{message, next};
use crate::contract_tests::stream::record;
use crate::local::{Local, LocalOptions};
use crate::{Position, Queue};

const TASK: &str = "STREAMPRESS_TEST_TASK";
const DIR: &str = "STREAMPRESS_TEST_DIR";
const FROM: &str = "STREAMPRESS_TEST_FROM";
const ENTRY: &str = "local::tests::processes::another_process";
const GROUPS: u64 = 5;
const KILLS: u32 = 60;
/// Bytes; large enough for the database.
const FILE_LIMIT: usize = 1_024_000;

fn open(dir: &Path) -> Local {
    let options = LocalOptions {
        // Longer than a test waits: only the end of its process makes a message visible again.
        visibility_timeout: Duration::from_secs(3600),
        max_receive_count: 1000,
        segment_bytes: 100_000,
        ..LocalOptions::default()
    };
    Local::open(dir, options).unwrap()
}

fn say(text: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{text}").unwrap();
    out.flush().unwrap();
}

/// The entry point of the started processes; without a task, in the ordinary run of all tests, it does nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn another_process() {
    let Ok(task) = std::env::var(TASK) else {
        return;
    };
    let local = open(Path::new(&std::env::var(DIR).unwrap()));
    let from = std::env::var(FROM).map_or(0, |from| from.parse().unwrap());
    say("ready");
    match task.as_str() {
        "hold" => hold(&local).await,
        "wait" => wait(&local).await,
        "send" => local
            .files_queue()
            .send(vec![message("g", "from afar")])
            .await
            .unwrap(),
        "pass" => drop(tokio::join!(
            produce(&local, from, say_sent),
            consume(&local)
        )),
        "consume" => consume(&local).await,
        "hammer" => hammer(&local).await,
        "append" => append_beyond_the_limit(&local).await,
        other => panic!("no such task: {other}"),
    }
}

async fn hold(local: &Local) {
    let slot = local.lock("role", 1).try_acquire().await.unwrap().unwrap();
    slot.count(|ledger| ledger.files = 3);
    assert!(slot.flush().await);
    let delivery = next(&local.files_queue()).await;
    say(&format!("got {}", delivery.body));
    std::future::pending::<()>().await;
}

async fn wait(local: &Local) {
    let (files, chunks) = (local.files_queue(), local.chunks_queue());
    let forever = Duration::from_secs(3600);
    let _ = tokio::join!(files.receive(1, forever), chunks.receive(1, forever));
}

fn say_sent(number: u64) {
    say(&format!("sent {number}"));
}

/// Appends, announces and reports, for ever.
async fn produce(local: &Local, from: u64, sent: fn(u64)) {
    let (stream, queue) = (local.stream(), local.chunks_queue());
    for number in from.. {
        let positions = stream.append(vec![record(number, 2000)]).await.unwrap();
        let mut announcement = message(&format!("g{}", number % GROUPS), &number.to_string());
        let place = serde_json::to_string(&positions[0]).unwrap();
        announcement.attributes.insert("position".into(), place);
        queue.send(vec![announcement]).await.unwrap();
        sent(number);
    }
}

async fn consume(local: &Local) {
    loop {
        take_some(local, Duration::from_secs(3600), &mut |number| {
            say(&format!("got {number}"))
        })
        .await;
    }
}

/// Receives, checks the bytes, reports, deletes.
async fn take_some(local: &Local, wait: Duration, got: &mut (dyn FnMut(u64) + Send)) -> usize {
    let queue = local.chunks_queue();
    let deliveries = queue.receive(10, wait).await.unwrap();
    for delivery in &deliveries {
        let number: u64 = delivery.body.parse().unwrap();
        let position: Position = serde_json::from_str(&delivery.attributes["position"]).unwrap();
        let bytes = local.stream().fetch(&[position]).await.unwrap();
        assert!(
            bytes[0] == record(number, 2000).data,
            "the bytes of {number} changed"
        );
        got(number);
        queue.delete(&delivery.receipt).await.unwrap();
    }
    deliveries.len()
}

/// A record that fits into the file size limit, one that does not, and one that fits again.
async fn append_beyond_the_limit(local: &Local) {
    let stream = local.stream();
    let small = [record(1, 1000), record(2, 1000)];
    let before = stream.append(vec![small[0].clone()]).await.unwrap();
    let error = stream
        .append(vec![record(3, 2 * FILE_LIMIT)])
        .await
        .expect_err("should not fit");
    assert!(
        error.to_string().contains("writing to the stream"),
        "{error}"
    );
    let after = stream.append(vec![small[1].clone()]).await.unwrap();
    assert_ne!(
        before[0].shard, after[0].shard,
        "went on in a file of unknown state"
    );
    let both = stream
        .fetch(&[before[0].clone(), after[0].clone()])
        .await
        .unwrap();
    assert!(both[0] == small[0].data && both[1] == small[1].data);
    let given_up = local.dir().join(format!("stream/{}.seg", before[0].shard));
    let left = std::fs::metadata(given_up).unwrap().len();
    assert!(left < 2000, "{left} bytes are still in the way");
    // Appends that fail one after another leave no segments behind.
    let segments = || {
        std::fs::read_dir(local.dir().join("stream"))
            .unwrap()
            .count()
    };
    assert_eq!(segments(), 2);
    for _ in 0..3 {
        let too_large = vec![record(3, 2 * FILE_LIMIT)];
        stream.append(too_large).await.expect_err("should not fit");
    }
    assert_eq!(segments(), 2);
    say("went on");
}

/// Sends and receives as fast as it can.
async fn hammer(local: &Local) {
    let queue: Arc<dyn Queue> = local.files_queue();
    let workers = (0..16u32).map(|worker| {
        let queue = Arc::clone(&queue);
        async move {
            for number in 0u64.. {
                let own = message(
                    &format!("{worker}"),
                    &format!("{worker} {number} {}", fastrand::u64(..)),
                );
                queue.send(vec![own]).await.unwrap();
                for delivery in queue.receive(1, Duration::ZERO).await.unwrap() {
                    queue.delete(&delivery.receipt).await.unwrap();
                }
            }
        }
    });
    futures::future::join_all(workers).await;
}

/// A started process; killed when dropped.
struct Other {
    child: Child,
    lines: std::io::Lines<BufReader<ChildStdout>>,
}

impl Other {
    fn start(task: &str, dir: &Path, from: u64) -> Self {
        Self::start_as(
            Command::new(std::env::current_exe().unwrap()),
            task,
            dir,
            from,
        )
    }

    fn start_as(mut command: Command, task: &str, dir: &Path, from: u64) -> Self {
        let mut child = command
            .args(["--exact", ENTRY, "--nocapture", "--test-threads=1"])
            .env(TASK, task)
            .env(DIR, dir)
            .env(FROM, from.to_string())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut other = Self { child, lines };
        other.wait_for("ready");
        other
    }

    /// Reads on until a line ends with this: the test program's own words may stand before it.
    fn wait_for(&mut self, ending: &str) {
        let found = self
            .lines
            .by_ref()
            .any(|line| line.unwrap().ends_with(ending));
        assert!(found, "the process ended before it said {ending:?}");
    }

    /// Reads lines until so many of them begin with `word`.
    fn lines_until(&mut self, word: &str, count: usize) -> Vec<String> {
        let (mut said, mut found) = (Vec::new(), 0);
        while found < count {
            let line = self.lines.next().unwrap().unwrap();
            found += usize::from(line.starts_with(word));
            said.push(line);
        }
        said
    }

    /// Kill -9; answers what it said.
    fn kill(&mut self) -> Vec<String> {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        self.lines.by_ref().map_while(Result::ok).collect()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn numbers(lines: &[String], word: &str) -> Vec<u64> {
    let said = lines.iter().filter_map(|line| line.strip_prefix(word));
    // A line is one write, which a kill does not split.
    said.filter_map(|number| number.trim().parse().ok())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killed_at_any_moment_nothing_is_lost_altered_or_out_of_order() {
    let dir = tempfile::tempdir().unwrap();
    let (mut sent, mut got) = (BTreeSet::new(), Vec::new());
    let mut next_number = 0;
    for _ in 0..KILLS {
        let mut other = Other::start("pass", dir.path(), next_number);
        // The moment of the kill is what is varied: after some progress, however slow the machine is, and a little more.
        let mut said = other.lines_until("sent ", fastrand::usize(0..=5));
        // A little more.
        std::thread::sleep(Duration::from_micros(fastrand::u64(0..5_000)));
        said.extend(other.kill());
        sent.extend(numbers(&said, "sent "));
        got.extend(numbers(&said, "got "));
        // The one that was under way is sent again, as a user would do.
        next_number = sent.last().map_or(0, |last| last + 1);
    }
    let local = open(dir.path());
    while take_some(&local, Duration::from_millis(1500), &mut |number| {
        got.push(number)
    })
    .await
        > 0
    {}
    assert!(
        sent.len() > KILLS as usize,
        "only {} were sent: nothing was tried",
        sent.len()
    );
    let received: BTreeSet<u64> = got.iter().copied().collect();
    let lost: Vec<_> = sent.difference(&received).collect();
    assert!(lost.is_empty(), "lost {lost:?}");
    let mut last: BTreeMap<u64, u64> = BTreeMap::new();
    for number in got {
        let before = last.insert(number % GROUPS, number).unwrap_or(0);
        assert!(before <= number, "{number} came after {before}");
    }
    assert_eq!(local.chunks_queue().depth().await.unwrap().total(), 0);
    let dead = local.chunks_queue().dead_letters().unwrap();
    assert_eq!(dead.depth().await.unwrap().total(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_process_releases_its_message_and_its_slot_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let local = open(dir.path());
    local
        .files_queue()
        .send(vec![message("g", "in flight")])
        .await
        .unwrap();
    let lock = local.lock("role", 1);
    let mut other = Other::start("hold", dir.path(), 0);
    other.wait_for("got in flight");
    assert!(lock.try_acquire().await.unwrap().is_none());
    assert!(lock.all_held_by_others().await.unwrap());
    let waiting = tokio::spawn({
        let queue = local.files_queue();
        async move { next(&queue).await }
    });
    other.kill();
    let slot = lock
        .try_acquire()
        .await
        .unwrap()
        .expect("the slot should be free");
    assert_eq!(slot.ledger().files, 3);
    let delivery = waiting.await.unwrap();
    assert_eq!(
        (delivery.body.as_str(), delivery.receive_count),
        ("in flight", 2)
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_receive_sees_what_another_process_sends() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).files_queue();
    let waiting = tokio::spawn(async move { next(&queue).await.body });
    let other = Other::start("send", dir.path(), 0);
    assert_eq!(waiting.await.unwrap(), "from afar");
    drop(other);
}

#[tokio::test(flavor = "multi_thread")]
async fn processes_share_the_work_and_no_message_is_done_twice() {
    const COUNT: u64 = 300;
    let dir = tempfile::tempdir().unwrap();
    let mut others: Vec<Other> = (0..2)
        .map(|_| Other::start("consume", dir.path(), 0))
        .collect();
    let local = open(dir.path());
    let producer = tokio::spawn({
        let local = local.clone();
        async move { produce(&local, 0, drop).await }
    });
    // Until each has had one, however the machine divides its time between them.
    let first: Vec<Vec<String>> = others
        .iter_mut()
        .map(|other| other.lines_until("got ", 1))
        .collect();
    eventually("enough were done", || async {
        let depth = local.chunks_queue().depth().await.unwrap();
        let sent: i64 = local
            .store
            .call(|step| {
                Ok(step
                    .conn
                    .query_row("SELECT count(*) FROM dedup", [], |row| row.get(0))?)
            })
            .await
            .unwrap();
        sent as u64 - depth.total() > COUNT
    })
    .await;
    producer.abort();
    eventually("the rest is done", || async {
        local.chunks_queue().depth().await.unwrap().total() == 0
    })
    .await;
    let shares: Vec<Vec<u64>> = others
        .iter_mut()
        .zip(first)
        .map(|(other, mut said)| {
            said.extend(other.kill());
            numbers(&said, "got ")
        })
        .collect();
    let all: Vec<u64> = shares.iter().flatten().copied().collect();
    let distinct: BTreeSet<u64> = all.iter().copied().collect();
    assert_eq!(distinct.len(), all.len(), "some were done twice");
    assert!(distinct.len() as u64 > COUNT);
    for share in &shares {
        assert!(!share.is_empty(), "one process got nothing");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_process_under_full_load_does_not_starve_another() {
    let dir = tempfile::tempdir().unwrap();
    let queue = open(dir.path()).chunks_queue();
    let mut other = Other::start("hammer", dir.path(), 0);
    for number in 0..15 {
        // A process that is starved for 20 s gets an error.
        queue
            .send(vec![message("g", &number.to_string())])
            .await
            .unwrap();
    }
    other.kill();
}

#[tokio::test(flavor = "multi_thread")]
async fn own_load_does_not_keep_receivers_from_what_another_process_sends() {
    let dir = tempfile::tempdir().unwrap();
    let (busy, other) = (open(dir.path()), open(dir.path()));
    let load = tokio::spawn({
        let busy = busy.clone();
        async move { hammer(&busy).await }
    });
    let queue = busy.chunks_queue();
    let waiting = tokio::spawn(async move { next(&queue).await.body });
    // So that the receive most likely waits by then; it must wake in either order.
    tokio::time::sleep(Duration::from_millis(300)).await;
    other
        .chunks_queue()
        .send(vec![message("g", "heard")])
        .await
        .unwrap();
    assert_eq!(waiting.await.unwrap(), "heard");
    load.abort();
}

#[test]
fn after_a_failed_append_the_stream_goes_on_in_a_new_segment() {
    let dir = tempfile::tempdir().unwrap();
    // A write beyond the limit fails like one on a full disk: part of it is written, then an error.
    let mut limited = Command::new("sh");
    let limit = format!(
        "trap '' XFSZ; ulimit -f {}; exec \"$0\" \"$@\"",
        FILE_LIMIT / 512
    );
    limited
        .args(["-c", &limit])
        .arg(std::env::current_exe().unwrap());
    Other::start_as(limited, "append", dir.path(), 0).wait_for("went on");
}

/// The time on a CPU of all threads, which other processes do not lengthen, and resident kilobytes.
fn cost(pid: u32) -> (Duration, u64) {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let nanoseconds = threads.map(|thread| {
        let statistics = std::fs::read_to_string(thread.unwrap().path().join("schedstat")).unwrap();
        let on_cpu = statistics.split_whitespace().next().unwrap();
        on_cpu.parse::<u64>().unwrap()
    });
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let resident = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap();
    (
        Duration::from_nanos(nanoseconds.sum()),
        resident.trim().trim_end_matches(" kB").parse().unwrap(),
    )
}

#[test]
fn an_idle_process_costs_next_to_nothing() {
    const MOST: Duration = Duration::from_millis(90);
    let dir = tempfile::tempdir().unwrap();
    let other = Other::start("wait", dir.path(), 0);
    let (mut times, mut resident) = (Vec::<Duration>::new(), u64::MAX);
    // What an idle process costs shows only over a time; what it does before it waits adds to that, and a busy machine does.
    while times.len() < 5 && times.iter().all(|time| *time > MOST) {
        let (before, _) = cost(other.child.id());
        // The time that is measured.
        std::thread::sleep(Duration::from_secs(3));
        let (after, now) = cost(other.child.id());
        times.push(after - before);
        resident = now;
    }
    assert!(
        times.iter().any(|time| *time <= MOST),
        "{times:?} of CPU time, each in 3 s"
    );
    assert!(resident < 30_000, "{resident} kB resident");
}
