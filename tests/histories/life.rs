//! A pipeline of real processes, and what happens to it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use streampress_tests::aws::Cloud;
use streampress_tests::eventually_blocking;
use streampress_tests::fake_aws::faults::Faults;
use streampress_tests::sandbox::{CommandOutput, RunningProgram, Sandbox};

use crate::history::{HistoryStep, How, NAMES, SimSettings, Time, at, content};
use crate::seen::{Watcher, assert_whole_and_in_order};

const PROGRAM: &str = env!("CARGO_BIN_EXE_streampress-program");
/// The longest pause between two steps.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);
/// What lasts for a while ends after so many steps, at most.
const LONGEST: usize = 6;

/// A process of the pipeline, and whether it is to run.
struct Worker {
    role: &'static str,
    running: Option<RunningProgram>,
    is_frozen: bool,
}

/// What ends by itself.
#[derive(Clone, Copy)]
enum Ending {
    Thaw(usize),
    Start(usize),
    ClearFaults,
    RemoveObstacle(u8),
}

/// A pipeline and its files.
pub(crate) struct RealPipeline<'c> {
    sandbox: Sandbox,
    cloud: Option<&'c Cloud>,
    is_scanned: bool,
    workers: Vec<Worker>,
    logs: usize,
    watcher: Watcher,
    /// Contents of each name at the source, oldest first; none while there was no such file.
    at_source: BTreeMap<&'static str, Vec<Option<Vec<u8>>>>,
    /// Contents that others wrote at the destination.
    by_others: BTreeMap<&'static str, Vec<Vec<u8>>>,
    /// Those of them that others neither changed nor removed.
    theirs: BTreeMap<&'static str, Vec<Vec<u8>>>,
    /// Names of which others took the copy away, wrote it, or were in the way of it.
    is_left_to_others: BTreeSet<&'static str>,
    endings: Vec<(usize, Ending)>,
    steps: usize,
}

impl<'c> RealPipeline<'c> {
    /// Starts the pipeline.
    pub(crate) fn begin(settings: &SimSettings, cloud: Option<&'c Cloud>, name: &str) -> Self {
        let url = cloud.map_or("http://127.0.0.1:9", |cloud| &cloud.fake_aws.url);
        let sandbox = Sandbox::new(PROGRAM, url, name, &spec(settings));
        for folder in ["in/folder", "out", "elsewhere"] {
            fs::create_dir_all(sandbox.data(folder)).expect("a folder");
        }
        if cloud.is_some() {
            sandbox.run(&["setup", "pipeline.yaml"]).success();
        }
        let is_scanned = settings.scan_seconds.is_some();
        let roles = [
            ("generate", u8::from(is_scanned)),
            ("compress", settings.compressors),
            ("decompress", settings.decompressors),
        ];
        let workers = roles
            .into_iter()
            .flat_map(|(role, count)| (0..count).map(move |_| role));
        let mut pipeline = Self {
            watcher: Watcher::start(&sandbox.data("out")),
            sandbox,
            cloud,
            is_scanned,
            workers: workers
                .map(|role| Worker {
                    role,
                    running: None,
                    is_frozen: false,
                })
                .collect(),
            logs: 0,
            at_source: BTreeMap::new(),
            by_others: BTreeMap::new(),
            theirs: BTreeMap::new(),
            is_left_to_others: BTreeSet::new(),
            endings: Vec::new(),
            steps: 0,
        };
        (0..pipeline.workers.len()).for_each(|number| pipeline.start(number));
        pipeline
    }

    /// Lets time pass, a twentieth of the simulation's.
    pub(crate) fn pause(&self, millis: u64) {
        // The history goes on whatever the pipeline does.
        std::thread::sleep(Duration::from_millis(millis / 20).min(LONGEST_PAUSE));
    }

    /// Does a step, unless it is one that is left out.
    pub(crate) fn apply(&mut self, step: HistoryStep) {
        self.steps += 1;
        self.supervise();
        let due: Vec<_> = self
            .endings
            .extract_if(.., |(at, _)| *at <= self.steps)
            .collect();
        due.into_iter().for_each(|(_, ending)| self.finish(ending));
        match step {
            HistoryStep::Write {
                name,
                content: number,
                bytes,
                how,
                time,
            } => {
                let path = self.source(name);
                let modified = modified(&path, time);
                if how == How::InPlace && path.exists() {
                    // Emptied first: a scan may see that.
                    self.note(name, Some(Vec::new()));
                }
                self.write(name, content(number, bytes), how);
                if let Some(modified) = modified {
                    set_modified(&path, modified);
                }
            }
            HistoryStep::Append {
                name,
                content: number,
                bytes,
            } => {
                let mut all = self.held(name).unwrap_or_default();
                all.extend(content(number, bytes.into()));
                self.note(name, Some(all.clone()));
                append_to(&self.source(name), all);
            }
            HistoryStep::Truncate { name, bytes } => {
                if let Some(mut held) = self.held(name) {
                    // The simulation's disk fills up with zeros, as this one does.
                    held.resize(bytes.into(), 0);
                    self.note(name, Some(held));
                    let file = fs::File::options().write(true).open(self.source(name));
                    let file = file.expect("our own file");
                    file.set_len(bytes.into()).expect("truncated");
                }
            }
            HistoryStep::Copy {
                from,
                to,
                keeps_time,
            } => {
                if let Some(held) = self.held(from).filter(|_| at(from) != at(to)) {
                    let time = keeps_time.then(|| modified_at(&self.source(from)));
                    if self.held(to).is_some() {
                        self.note(to, Some(Vec::new()));
                    }
                    self.write(to, held, How::InPlace);
                    if let Some(time) = time {
                        set_modified(&self.source(to), time);
                    }
                }
            }
            HistoryStep::RenameOver { from, to } => {
                if let Some(held) = self.held(from).filter(|_| at(from) != at(to)) {
                    self.note(to, Some(held));
                    self.note(from, None);
                    let renamed = fs::rename(self.source(from), self.source(to));
                    renamed.expect("our own files");
                }
            }
            HistoryStep::CopyTruncate { from, to } => {
                if let Some(held) = self.held(from).filter(|_| at(from) != at(to)) {
                    self.write(to, held, How::Replace);
                    self.note(from, Some(Vec::new()));
                    fs::File::create(self.source(from)).expect("emptied");
                }
            }
            HistoryStep::Touch { name, time } => touch(&self.source(name), time),
            HistoryStep::Delete { name } => {
                self.note(name, None);
                let _ = fs::remove_file(self.source(name));
            }
            HistoryStep::Submit { name } => {
                if self.held(name).is_some() {
                    let path = self.source(name);
                    let said = self.command("submit", &[path.to_str().expect("UTF-8")]);
                    // While AWS is down it may fail, and says so.
                    assert!(self.cloud.is_some() || said.code == Some(0), "{said:?}");
                }
            }
            HistoryStep::Redrive => drop(self.command("redrive", &[])),
            HistoryStep::Recover => drop(self.command("recover", &[])),
            step => self.change_destination(step),
        }
    }

    /// What other programs do at the destination.
    fn change_destination(&mut self, step: HistoryStep) {
        match step {
            HistoryStep::TouchCopy { name, time } => touch(&self.destination(name), time),
            HistoryStep::WriteCopy {
                name,
                content: number,
                bytes,
                ..
            } => {
                // Numbers of their own: no source has such content. A private file renamed over: what is written into a file that
                // is replaced at this moment would be lost by its writer's own fault.
                let bytes = content(number.saturating_add(30_000), bytes.into());
                let path = self.destination(name);
                if !path.is_dir() {
                    self.others_change(name);
                    self.by_others
                        .entry(at(name))
                        .or_default()
                        .push(bytes.clone());
                    self.theirs.entry(at(name)).or_default().push(bytes.clone());
                    self.replace(&path, &bytes);
                }
            }
            HistoryStep::DeleteCopy { name } => {
                self.others_change(name);
                let _ = fs::remove_file(self.destination(name));
            }
            HistoryStep::Obstruct { name, seconds } => {
                let path = self.destination(name);
                self.is_left_to_others.insert(at(name));
                make_parent(&path);
                if fs::create_dir(&path).is_ok() {
                    let _ = fs::write(path.join("in-the-way"), "");
                    self.later(seconds, Ending::RemoveObstacle(name));
                }
            }
            step => self.disturb(step),
        }
    }

    /// What happens to processes, and to AWS. What is not here is left out.
    fn disturb(&mut self, step: HistoryStep) {
        match step {
            HistoryStep::Kill { role, effects } => {
                let number = self.number(role);
                // So that it dies at any moment of its work.
                std::thread::sleep(Duration::from_millis(5 * u64::from(effects)));
                let worker = &mut self.workers[number];
                worker.is_frozen = false;
                // Killed by its end.
                if worker.running.take().is_some() {
                    self.start(number);
                }
            }
            HistoryStep::Freeze { role, seconds } => {
                let number = self.number(role);
                self.workers[number].freeze(true);
                self.later(seconds, Ending::Thaw(number));
            }
            HistoryStep::Restart { role } => {
                let number = self.number(role);
                self.stop(number);
                self.start(number);
            }
            HistoryStep::Stop { role, seconds } => {
                let number = self.number(role);
                self.stop(number);
                self.later(seconds, Ending::Start(number));
            }
            HistoryStep::Suspend { seconds } => {
                let sends = |number: &usize| self.workers[*number].role != "decompress";
                let sending: Vec<_> = (0..self.workers.len()).filter(sends).collect();
                for number in sending {
                    self.stop(number);
                    self.later(seconds, Ending::Start(number));
                }
            }
            HistoryStep::Down { seconds, .. } => self.fail(seconds, |faults| {
                faults.server_error = 1.0;
            }),
            HistoryStep::Lossy {
                percent, seconds, ..
            } => self.fail(seconds, |faults| {
                faults.lost_request = f64::from(percent) / 200.0;
                faults.lost_response = f64::from(percent) / 200.0;
            }),
            HistoryStep::Duplicates {
                percent, seconds, ..
            } => self.fail(seconds, |faults| {
                faults.duplicate = f64::from(percent) / 100.0;
            }),
            HistoryStep::Slow {
                millis, seconds, ..
            } => self.fail(seconds, |faults| {
                faults.delay = 0.5;
                faults.delay_for = Duration::from_millis(u64::from(millis) / 10);
            }),
            HistoryStep::Reshard { shards } => {
                if let Some(cloud) = self.cloud {
                    // Refused while the one before is under way.
                    let _ = cloud.fake_aws.reshard(&self.stream(), shards.into());
                }
            }
            _ => {}
        }
    }

    fn fail(&mut self, seconds: u32, set: impl FnOnce(&mut Faults)) {
        if let Some(cloud) = self.cloud {
            let mut faults = Faults::default();
            set(&mut faults);
            cloud.fake_aws.set_faults(faults);
            self.later(seconds, Ending::ClearFaults);
        }
    }

    fn later(&mut self, seconds: u32, ending: Ending) {
        let steps = 1 + usize::try_from(seconds).unwrap_or_default() % LONGEST;
        self.endings.push((self.steps + steps, ending));
    }

    fn finish(&mut self, ending: Ending) {
        match ending {
            Ending::Thaw(number) => self.workers[number].freeze(false),
            Ending::Start(number) => self.start(number),
            Ending::RemoveObstacle(name) => {
                let _ = fs::remove_dir_all(self.destination(name));
            }
            Ending::ClearFaults => {
                if let Some(cloud) = self.cloud {
                    cloud.fake_aws.set_faults(Faults::default());
                }
            }
        }
    }

    /// Makes the world well, waits for what happens by itself, then redrives and submits all there is; judges what lies there.
    pub(crate) fn end(mut self) {
        for (_, ending) in std::mem::take(&mut self.endings) {
            self.finish(ending);
        }
        self.supervise();
        (0..self.workers.len()).for_each(|number| self.start(number));
        let present: Vec<(&'static str, Vec<u8>)> = (0..)
            .take(NAMES.len())
            .filter_map(|name| Some((at(name), self.held(name)?)))
            .collect();
        for (name, content) in &present {
            if self.is_scanned && !self.is_left_to_others.contains(name) {
                let path = self.sandbox.data("out").join(name);
                eventually_blocking(&format!("{name} is restored by itself"), || {
                    fs::read(&path).is_ok_and(|found| found == *content)
                });
            }
        }
        self.command("redrive", &[]);
        let paths = present
            .iter()
            .map(|(name, _)| self.sandbox.data("in").join(name));
        let paths: Vec<_> = paths
            .map(|path| path.to_str().expect("UTF-8").to_owned())
            .collect();
        if !paths.is_empty() {
            let mut args = vec!["--wait", "--timeout", "120"];
            args.extend(paths.iter().map(String::as_str));
            let said = self.command("submit", &args);
            assert_eq!(said.code, Some(0), "{said:?}");
        }
        for (name, content) in &present {
            let found = fs::read(self.sandbox.data("out").join(name));
            assert_eq!(found.ok().as_ref(), Some(content), "{name}");
        }
        self.assert_letters_are_explained();
        for number in 0..self.workers.len() {
            self.stop(number);
        }
        self.assert_nothing_of_others_is_lost();
        let seen = self.watcher.stop();
        for (name, seen) in &seen {
            let at_source = self.at_source.get(name).map(Vec::as_slice);
            let by_others = self.by_others.get(name).map(Vec::as_slice);
            let (at_source, by_others) =
                (at_source.unwrap_or_default(), by_others.unwrap_or_default());
            assert_whole_and_in_order(name, seen, at_source, by_others);
        }
    }

    /// A dead letter that is left is of a file that is gone, or says why it could not be written.
    fn assert_letters_are_explained(&self) {
        let list = self.command("redrive", &["--list"]).success();
        for line in list.lines().filter(|line| !line.is_empty()) {
            let is_known = ["SourceMissing", "BadName"]
                .iter()
                .any(|reason| line.contains(reason));
            assert!(is_known, "a dead letter is left: {list}");
        }
    }

    /// What others wrote lies where they wrote it, or where it was moved out of the way.
    fn assert_nothing_of_others_is_lost(&self) {
        let mut kept = Vec::new();
        collect(&self.sandbox.data("out"), &mut kept);
        for (name, contents) in &self.theirs {
            let at_source = self.at_source.get(name).into_iter().flatten();
            let at_source: Vec<_> = at_source.flatten().collect();
            // One that the source had too counts as restored: it may be replaced.
            for content in contents.iter().filter(|it| !at_source.contains(it)) {
                let shown = String::from_utf8_lossy(content);
                assert!(
                    kept.contains(content),
                    "{name}: {shown:?}, which others wrote, is gone"
                );
            }
        }
    }

    /// Others are about to change or remove a copy: what they wrote before is theirs no longer.
    fn others_change(&mut self, name: u8) {
        self.is_left_to_others.insert(at(name));
        let before = fs::read(self.destination(name)).ok();
        let theirs = self.theirs.entry(at(name)).or_default();
        if let Some(place) = theirs.iter().position(|held| Some(held) == before.as_ref()) {
            theirs.remove(place);
        }
    }

    fn command(&self, command: &str, args: &[&str]) -> CommandOutput {
        let pipeline: &[&str] = match command {
            "submit" => &["-p", "pipeline.yaml"],
            _ => &["pipeline.yaml"],
        };
        let all = [&[command], pipeline, self.place(), args].concat();
        let said = self.sandbox.run(&all);
        // It was not killed, and no panic ended it.
        assert!(said.code.is_some_and(|code| code < 100), "{said:?}");
        said
    }

    fn place(&self) -> &'static [&'static str] {
        match self.cloud {
            Some(_) => &["--aws"],
            None => &[],
        }
    }

    fn start(&mut self, number: usize) {
        if self.workers[number].running.is_some() {
            return;
        }
        self.logs += 1;
        let role = self.workers[number].role;
        let args = [&[role, "pipeline.yaml"], self.place()].concat();
        let log = format!("{role}-{number}.{}.log", self.logs);
        self.workers[number].running = Some(self.sandbox.start(&log, &args));
    }

    /// Starts anew what AWS refused at its start: it says so and ends.
    fn supervise(&mut self) {
        for number in 0..self.workers.len() {
            let worker = &mut self.workers[number];
            if let Some(ended) = worker.running.take_if(|it| !it.is_running()) {
                let log = ended.log();
                assert!(self.cloud.is_some() && log.contains("error: "), "{log}");
                self.start(number);
            }
        }
    }

    fn stop(&mut self, number: usize) {
        self.supervise();
        self.workers[number].freeze(false);
        if let Some(running) = self.workers[number].running.take() {
            let log = running.log();
            let code = running.stop();
            // One that has not begun yet ends as any program does; one that AWS refuses at its start says so.
            let has_begun = !log.is_empty();
            let is_refused = log.contains("error: ") && self.cloud.is_some();
            assert!(
                code == Some(0) || (code.is_none() && !has_begun) || is_refused,
                "{code:?} {log}"
            );
        }
    }

    fn number(&self, role: u8) -> usize {
        usize::from(role) % self.workers.len()
    }

    fn stream(&self) -> String {
        let folder = self.sandbox.data("in");
        let pipeline = folder.parent().and_then(Path::file_name);
        let pipeline = pipeline.expect("the pipeline's name").to_string_lossy();
        format!("{pipeline}-stream")
    }

    fn source(&self, name: u8) -> PathBuf {
        self.sandbox.data("in").join(at(name))
    }

    fn destination(&self, name: u8) -> PathBuf {
        self.sandbox.data("out").join(at(name))
    }

    /// The source file's content of now.
    fn held(&self, name: u8) -> Option<Vec<u8>> {
        self.at_source.get(at(name))?.last()?.clone()
    }

    /// Notes a content that the source is about to have.
    fn note(&mut self, name: u8, content: Option<Vec<u8>>) {
        self.at_source.entry(at(name)).or_default().push(content);
    }

    fn write(&mut self, name: u8, content: Vec<u8>, how: How) {
        self.note(name, Some(content.clone()));
        let path = self.source(name);
        match how {
            How::Replace => self.replace(&path, &content),
            How::InPlace => fs::write(path, content).expect("written"),
        }
    }

    fn replace(&self, path: &Path, content: &[u8]) {
        let private = self.sandbox.data("elsewhere/private");
        fs::write(&private, content).expect("written");
        make_parent(path);
        // A folder is in the way only for the time of a step.
        let _ = fs::rename(&private, path);
    }
}

impl Worker {
    fn freeze(&mut self, is_frozen: bool) {
        let Some(running) = self.running.as_ref() else {
            return;
        };
        if is_frozen != self.is_frozen {
            let signal = if is_frozen { "-STOP" } else { "-CONT" };
            let process = running.id().to_string();
            let sent = Command::new("kill").args([signal, &process]).status();
            assert!(sent.expect("kill runs").success(), "the signal was refused");
            self.is_frozen = is_frozen;
        }
    }
}

fn spec(settings: &SimSettings) -> String {
    let ordering = if settings.is_strict {
        "Strict"
    } else {
        "PerName"
    };
    let bundle = if settings.bundles { "Auto" } else { "Off" };
    let scan = u8::from(settings.scan_seconds.is_some());
    let version = settings.format_version.number();
    format!(
        "\x20 ordering: {ordering}\n\
         \x20 source: {{scanSeconds: {scan}, settleSeconds: 0}}\n\
         \x20 codec: {{effort: Fast, blockSize: 256Ki, recordSize: 64Ki, bundle: {bundle}, formatVersion: {version}}}"
    )
}

fn modified(path: &Path, time: Time) -> Option<SystemTime> {
    let seconds = |seconds: u32| Duration::from_secs(seconds.into());
    match time {
        Time::Now => None,
        Time::Same => path.exists().then(|| modified_at(path)),
        Time::Past(ago) => Some(SystemTime::now() - seconds(ago)),
        Time::Future(from_now) => Some(SystemTime::now() + seconds(from_now)),
    }
}

fn modified_at(path: &Path) -> SystemTime {
    let data = fs::metadata(path).and_then(|data| data.modified());
    data.expect("our own file")
}

/// Sets the time of a file that may be gone.
fn set_modified(path: &Path, modified: SystemTime) {
    if let Ok(file) = fs::File::options().append(true).open(path) {
        file.set_modified(modified).expect("a time");
    }
}

fn touch(path: &Path, time: Time) {
    let modified = modified(path, time).unwrap_or_else(SystemTime::now);
    set_modified(path, modified);
}

/// Appends what is missing of `all` in one write.
fn append_to(path: &Path, all: Vec<u8>) {
    use std::io::Write;
    let file = fs::File::options().create(true).append(true).open(path);
    let mut file = file.expect("our own file");
    let length = file.metadata().expect("metadata").len();
    let from = usize::try_from(length).expect("small");
    file.write_all(&all[from..]).expect("appended");
}

fn make_parent(path: &Path) {
    fs::create_dir_all(path.parent().expect("a folder")).expect("made");
}

/// The contents of all files below a folder.
fn collect(folder: &Path, contents: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        match path.is_dir() {
            true => collect(&path, contents),
            false => contents.extend(fs::read(path)),
        }
    }
}
