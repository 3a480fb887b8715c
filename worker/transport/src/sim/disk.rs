//! Files in simulated time: a disk with inodes and change times that fills, becomes read-only, and goes down. A history
//! changes it as other programs would; the pipeline sees it as [`Files`].

use std::collections::BTreeMap;
use std::io::{self, Cursor, Read};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use parking_lot::Mutex;

use super::process::SimProcess;
use super::world::World;
use crate::{ExactFile, ExactOutcome, FileEntry, FileName, Files, Listing, PendingFile};

/// A file on a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Another for each file that was ever made; kept by a write in place and by a rename.
    pub inode: u64,
    /// What it holds.
    pub bytes: Bytes,
    /// Set by the program that writes, in steps of the disk's granularity.
    pub modified: SystemTime,
    /// When content or attributes were last changed, by the wall clock.
    pub changed: SystemTime,
    /// Whether it can be opened.
    pub is_readable: bool,
}

/// How a disk fails.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct DiskFaults {
    /// Every call fails.
    pub is_down: bool,
    /// Nothing can be written, renamed or removed.
    pub is_read_only: bool,
    /// The file of this name cannot be written, renamed or removed.
    pub denied: Option<&'static str>,
    /// Bytes that fit.
    pub capacity_bytes: Option<u64>,
    /// Changes that are made and answered with an error, of 1.
    pub lost_answers: f64,
}

/// A disk. Clones are the same one.
#[derive(Debug, Clone)]
pub struct SimDisk {
    world: World,
    granularity: Duration,
    state: Arc<Mutex<DiskState>>,
}

#[derive(Debug, Default)]
struct DiskState {
    nodes: BTreeMap<String, Node>,
    next_inode: u64,
    faults: DiskFaults,
    /// Of files that are not visible yet.
    pending_bytes: u64,
    changes: Vec<DiskChange>,
    aside: Vec<AsideFile>,
}

/// A file that a process has set aside, to remove it.
#[derive(Debug)]
struct AsideFile {
    process: SimProcess,
    name: FileName,
    node: Node,
}

/// A change that the pipeline made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskChange {
    /// When, since the simulation's start.
    pub at: Duration,
    /// The process that made it.
    pub process: String,
    /// The file's name.
    pub name: String,
    /// What was there before.
    pub before: Option<Node>,
    /// What is there now.
    pub after: Option<Node>,
}

/// What another program writes into a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// A new file under a private name, renamed over the old: another inode.
    Replace(Bytes),
    /// The old file's content is replaced in place.
    InPlace(Bytes),
    /// At the end of what is there.
    Append(Bytes),
    /// The first bytes stay.
    Truncate(usize),
}

impl SimDisk {
    /// An empty disk whose modification times have steps of `granularity`.
    pub fn new(world: &World, granularity: Duration) -> Self {
        Self {
            world: world.clone(),
            granularity,
            state: Arc::default(),
        }
    }

    /// The disk as a process sees it, under this location.
    pub fn open(&self, location: &str, process: &SimProcess) -> SimFiles {
        let files = SimFiles {
            location: location.to_owned(),
            disk: self.clone(),
            process: process.clone(),
        };
        files.put_back_abandoned(|_| true);
        files
    }

    /// Changes how it fails from now on.
    pub fn set_faults(&self, change: impl FnOnce(&mut DiskFaults)) {
        change(&mut self.state.lock().faults);
    }

    /// How it fails now.
    pub fn faults(&self) -> DiskFaults {
        self.state.lock().faults
    }

    /// Bytes of all files, unfinished ones too.
    pub fn used_bytes(&self) -> u64 {
        self.state.lock().used_bytes()
    }

    /// All files.
    pub fn nodes(&self) -> BTreeMap<String, Node> {
        self.state.lock().nodes.clone()
    }

    /// One file.
    pub fn node(&self, name: &str) -> Option<Node> {
        self.state.lock().nodes.get(name).cloned()
    }

    /// Whether files lie below this name.
    pub fn is_folder(&self, name: &str) -> bool {
        self.state.lock().is_folder(name)
    }

    /// What the pipeline changed since the last call.
    pub fn take_changes(&self) -> Vec<DiskChange> {
        std::mem::take(&mut self.state.lock().changes)
    }

    /// Another program writes a file, with the time of now or with `modified`.
    pub fn write(&self, name: &str, write: Write, modified: Option<SystemTime>) {
        let mut state = self.state.lock();
        let old = state.nodes.get(name).cloned();
        let held = old
            .as_ref()
            .map(|node| node.bytes.clone())
            .unwrap_or_default();
        let bytes = match &write {
            Write::Replace(bytes) | Write::InPlace(bytes) => bytes.clone(),
            Write::Append(more) => [&held[..], &more[..]].concat().into(),
            Write::Truncate(length) => held.slice(..held.len().min(*length)),
        };
        let inode = match (&write, &old) {
            (Write::InPlace(_) | Write::Append(_) | Write::Truncate(_), Some(old)) => old.inode,
            _ => state.new_inode(),
        };
        let node = Node {
            inode,
            bytes,
            modified: self.rounded(modified.unwrap_or_else(|| self.world.now())),
            changed: self.world.now(),
            is_readable: true,
        };
        state.nodes.insert(name.to_owned(), node);
    }

    /// Another program changes a file's attributes; nothing where there is no such file.
    pub fn touch(&self, name: &str, change: impl FnOnce(&mut Node)) {
        let mut state = self.state.lock();
        if let Some(node) = state.nodes.get_mut(name) {
            change(node);
            node.modified = self.rounded(node.modified);
            node.changed = self.world.now();
        }
    }

    /// Another program renames a file over another; nothing where there is no such file.
    pub fn rename(&self, from: &str, to: &str) {
        let mut state = self.state.lock();
        if let Some(mut node) = state.nodes.remove(from) {
            node.changed = self.world.now();
            state.nodes.insert(to.to_owned(), node);
        }
    }

    /// Another program removes a file.
    pub fn remove(&self, name: &str) {
        self.state.lock().nodes.remove(name);
    }

    fn rounded(&self, time: SystemTime) -> SystemTime {
        let step = self.granularity.as_nanos().max(1);
        let nanos = time
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default()
            .as_nanos();
        let rounded = u64::try_from(nanos - nanos % step).unwrap_or(u64::MAX);
        UNIX_EPOCH + Duration::from_nanos(rounded)
    }
}

impl DiskState {
    fn new_inode(&mut self) -> u64 {
        self.next_inode += 1;
        self.next_inode
    }

    fn used_bytes(&self) -> u64 {
        let visible: u64 = self
            .nodes
            .values()
            .map(|node| node.bytes.len() as u64)
            .sum();
        visible + self.pending_bytes
    }

    /// Whether a file may lie under this name: none of the folders above is a file, and it is no folder itself.
    fn check_place(&self, name: &str) -> io::Result<()> {
        let folders = name.match_indices('/').map(|(at, _)| &name[..at]);
        if folders
            .into_iter()
            .any(|above| self.nodes.contains_key(above))
        {
            return Err(fault(io::ErrorKind::NotADirectory, "cannot write", name));
        }
        match self.is_folder(name) {
            true => Err(fault(io::ErrorKind::IsADirectory, "cannot write", name)),
            false => Ok(()),
        }
    }

    fn is_folder(&self, name: &str) -> bool {
        let below = format!("{name}/");
        let next = self.nodes.range(below.clone()..).next();
        next.is_some_and(|(other, _)| other.starts_with(&below))
    }
}

/// A location on a disk as one process sees it.
#[derive(Debug, Clone)]
pub struct SimFiles {
    location: String,
    disk: SimDisk,
    process: SimProcess,
}

impl SimFiles {
    fn check_up(&self) -> io::Result<()> {
        match self.disk.faults().is_down || self.process.killed().is_cancelled() {
            true => Err(fault(
                io::ErrorKind::TimedOut,
                "cannot reach",
                &self.location,
            )),
            false => Ok(()),
        }
    }

    /// Before a change: it may fail, or the process may die instead.
    fn check_writable(&self, name: &str) -> io::Result<()> {
        self.check_up()?;
        let faults = self.disk.faults();
        if faults.is_read_only || faults.denied == Some(name) {
            return Err(fault(
                io::ErrorKind::PermissionDenied,
                "cannot change",
                name,
            ));
        }
        match self.process.has_effect() {
            true => Ok(()),
            false => Err(fault(
                io::ErrorKind::Interrupted,
                "killed before changing",
                name,
            )),
        }
    }

    /// Makes changes at one moment, and keeps them for a checker. Their common answer may be lost.
    fn change<const N: usize>(&self, changes: [(&FileName, Option<Node>); N]) -> io::Result<()> {
        let mut state = self.disk.state.lock();
        for (name, after) in changes {
            let name = name.as_str().to_owned();
            let before = match &after {
                Some(node) => state.nodes.insert(name.clone(), node.clone()),
                None => state.nodes.remove(&name),
            };
            state.changes.push(DiskChange {
                at: self.disk.world.elapsed(),
                process: self.process.name().to_owned(),
                name,
                before,
                after,
            });
        }
        let lost = state.faults.lost_answers;
        drop(state);
        match self.disk.world.chance(lost) {
            true => Err(fault(
                io::ErrorKind::TimedOut,
                "no answer from",
                &self.location,
            )),
            false => Ok(()),
        }
    }
}

impl SimFiles {
    /// Puts back what ended processes had set aside, unless another file has its name by now.
    fn put_back_abandoned(&self, is_wanted: impl Fn(&FileName) -> bool) {
        let mut state = self.disk.state.lock();
        let abandoned =
            |it: &mut AsideFile| it.process.killed().is_cancelled() && is_wanted(&it.name);
        let found: Vec<_> = state.aside.extract_if(.., abandoned).collect();
        let (free, taken): (Vec<_>, Vec<_>) = found
            .into_iter()
            .partition(|it| !state.nodes.contains_key(it.name.as_str()));
        state.aside.extend(taken);
        drop(state);
        for AsideFile { name, mut node, .. } in free {
            node.changed = self.disk.world.now();
            // Nothing waits for an answer.
            let _ = self.change([(&name, Some(node))]);
        }
    }

    fn is_exact(&self, file: &ExactFile<'_>) -> io::Result<bool> {
        let name = file.entry.name.as_str();
        let Some(node) = self.disk.node(name) else {
            return Ok(false);
        };
        let has_hash = |hash: &str| blake3::hash(&node.bytes).to_hex().as_str() == hash;
        Ok(entry(name, &node)? == *file.entry && file.hash.is_none_or(has_hash))
    }
}

impl Files for SimFiles {
    fn location(&self) -> &str {
        &self.location
    }

    fn list(&self) -> io::Result<Listing> {
        self.check_up()?;
        let state = self.disk.state.lock();
        let entries = state.nodes.iter().map(|(name, node)| entry(name, node));
        let is_listed = |entry: &io::Result<FileEntry>| {
            entry
                .as_ref()
                .map_or(true, |entry| !entry.name.is_reserved())
        };
        Ok(Listing {
            files: entries.filter(is_listed).collect::<io::Result<_>>()?,
            ..Listing::default()
        })
    }

    fn stat(&self, name: &FileName) -> io::Result<Option<FileEntry>> {
        self.check_up()?;
        let node = self.disk.node(name.as_str());
        node.map(|node| entry(name.as_str(), &node)).transpose()
    }

    fn read(&self, name: &FileName) -> io::Result<Box<dyn Read + Send>> {
        self.check_up()?;
        match self.disk.node(name.as_str()) {
            None => Err(fault(io::ErrorKind::NotFound, "cannot read", name.as_str())),
            Some(node) if !node.is_readable => Err(fault(
                io::ErrorKind::PermissionDenied,
                "cannot read",
                name.as_str(),
            )),
            Some(node) => Ok(Box::new(Cursor::new(node.bytes))),
        }
    }

    fn create(&self, name: &FileName) -> io::Result<Box<dyn PendingFile>> {
        self.check_writable(name.as_str())?;
        self.disk.state.lock().check_place(name.as_str())?;
        Ok(Box::new(PendingSim {
            files: self.clone(),
            name: name.clone(),
            bytes: Vec::new(),
        }))
    }

    fn remove(&self, name: &FileName) -> io::Result<()> {
        self.check_writable(name.as_str())?;
        match self.disk.node(name.as_str()) {
            Some(_) => self.change([(name, None)]),
            None => Ok(()),
        }
    }

    fn rename(&self, from: &FileName, to: &FileName) -> io::Result<()> {
        self.check_writable(from.as_str())?;
        let Some(mut node) = self.disk.node(from.as_str()) else {
            return Err(fault(
                io::ErrorKind::NotFound,
                "cannot rename",
                from.as_str(),
            ));
        };
        self.disk.state.lock().check_place(to.as_str())?;
        node.changed = self.disk.world.now();
        match from == to {
            true => Ok(()),
            false => self.change([(from, None), (to, Some(node))]),
        }
    }

    fn remove_exact(&self, file: &ExactFile<'_>) -> io::Result<ExactOutcome> {
        self.check_writable(file.entry.name.as_str())?;
        let name = &file.entry.name;
        let node = self.disk.node(name.as_str());
        let Some(node) = node.filter(|_| matches!(self.is_exact(file), Ok(true))) else {
            return Ok(ExactOutcome::Changed);
        };
        // As on a real disk: set aside first, so that a process may be killed between.
        let answer = self.change([(name, None)]);
        self.disk.state.lock().aside.push(AsideFile {
            process: self.process.clone(),
            name: name.clone(),
            node,
        });
        self.check_writable(name.as_str())?;
        let is_own =
            |it: &mut AsideFile| it.process.name() == self.process.name() && it.name == *name;
        self.disk
            .state
            .lock()
            .aside
            .extract_if(.., is_own)
            .for_each(drop);
        answer.map(|()| ExactOutcome::Done)
    }

    fn put_back(&self, name: &FileName) -> io::Result<()> {
        self.check_up()?;
        self.put_back_abandoned(|it| it == name);
        Ok(())
    }

    fn rename_exact(&self, file: &ExactFile<'_>, to: &FileName) -> io::Result<ExactOutcome> {
        self.check_writable(file.entry.name.as_str())?;
        if self.disk.node(to.as_str()).is_some() {
            return Ok(ExactOutcome::NameTaken);
        }
        match self.is_exact(file)? {
            true => self
                .rename(&file.entry.name, to)
                .map(|()| ExactOutcome::Done),
            false => Ok(ExactOutcome::Changed),
        }
    }

    fn set_modified(&self, name: &FileName, modified: SystemTime) -> io::Result<()> {
        self.check_writable(name.as_str())?;
        match self.disk.node(name.as_str()) {
            Some(mut node) => {
                node.modified = self.disk.rounded(modified);
                node.changed = self.disk.world.now();
                self.change([(name, Some(node))])
            }
            None => Ok(()),
        }
    }

    fn list_reserved(&self, folder: &FileName) -> io::Result<Vec<String>> {
        self.check_up()?;
        let below = format!("{folder}/");
        let state = self.disk.state.lock();
        let inside = state.nodes.range(below.clone()..).map_while(|(name, _)| {
            let base = name.strip_prefix(&below)?;
            Some(base.to_owned())
        });
        Ok(inside.filter(|base| !base.contains('/')).collect())
    }
}

/// A file that is not visible yet. Its bytes need space all the same.
struct PendingSim {
    files: SimFiles,
    name: FileName,
    bytes: Vec<u8>,
}

impl io::Write for PendingSim {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.files.check_up()?;
        let mut state = self.files.disk.state.lock();
        let fits = |capacity| state.used_bytes() + bytes.len() as u64 <= capacity;
        if !state.faults.capacity_bytes.is_none_or(fits) {
            return Err(fault(
                io::ErrorKind::StorageFull,
                "cannot write",
                self.name.as_str(),
            ));
        }
        state.pending_bytes += bytes.len() as u64;
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl PendingFile for PendingSim {
    fn commit_over(
        self: Box<Self>,
        modified: SystemTime,
        seen: Option<&FileEntry>,
    ) -> io::Result<FileEntry> {
        let (files, name) = (self.files.clone(), self.name.clone());
        let now = files.stat(&name)?.map(|entry| entry.fingerprint);
        if now.as_ref() != seen.map(|entry| &entry.fingerprint) {
            return Err(fault(
                io::ErrorKind::AlreadyExists,
                "another file is in the place of",
                name.as_str(),
            ));
        }
        self.commit(modified)?;
        let written = files.stat(&name)?;
        written.ok_or_else(|| fault(io::ErrorKind::NotFound, "cannot find", name.as_str()))
    }

    fn commit(self: Box<Self>, modified: SystemTime) -> io::Result<()> {
        self.files.check_writable(self.name.as_str())?;
        let disk = &self.files.disk;
        let mut state = disk.state.lock();
        state.check_place(self.name.as_str())?;
        let node = Node {
            inode: state.new_inode(),
            bytes: Bytes::copy_from_slice(&self.bytes),
            modified: disk.rounded(modified),
            changed: disk.world.now(),
            is_readable: true,
        };
        drop(state);
        self.files.change([(&self.name, Some(node))])
    }
}

impl Drop for PendingSim {
    fn drop(&mut self) {
        let mut state = self.files.disk.state.lock();
        state.pending_bytes = state.pending_bytes.saturating_sub(self.bytes.len() as u64);
    }
}

fn entry(name: &str, node: &Node) -> io::Result<FileEntry> {
    Ok(FileEntry {
        name: FileName::parse(name).map_err(io::Error::other)?,
        size: node.bytes.len() as u64,
        modified: node.modified,
        fingerprint: format!(
            "{}-{}-{:?}-{:?}",
            node.inode,
            node.bytes.len(),
            node.modified,
            node.changed
        ),
        changed: Some(node.changed),
    })
}

fn fault(kind: io::ErrorKind, step: &str, what: &str) -> io::Error {
    io::Error::new(kind, format!("{step} {what}"))
}
