//! Histories of two pipelines that share a disk.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use streampress_transport::sim::{SimDisk, Write};
use tokio::time::sleep;

use super::history::content;
use super::named::SCANNED;
use super::pipeline::SimPipeline;
use super::run::runtime;
use crate::runtime::simulated;

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
/// The file that says whose a destination is.
const OWNER: &str = ".streampress/owner.json";

fn text(number: u16) -> Bytes {
    content(number, 40).into()
}

fn write(disk: &SimDisk, name: &str, number: u16) {
    disk.write(name, Write::Replace(text(number)), None);
}

fn read(disk: &SimDisk, name: &str) -> Option<Bytes> {
    disk.node(name).map(|node| node.bytes)
}

/// Files of others that were moved out of the way.
fn displaced(disk: &SimDisk) -> usize {
    let nodes = disk.nodes();
    let names = nodes.keys();
    names
        .filter(|name| name.starts_with(".streampress/displaced/"))
        .count()
}

fn dead_letters(pipeline: &SimPipeline) -> usize {
    let queues = [&pipeline.files_queue, &pipeline.chunks_queue];
    queues.iter().map(|queue| queue.dead_letters().len()).sum()
}

fn sends(pipeline: &SimPipeline) -> u64 {
    let queues = [&pipeline.files_queue, &pipeline.chunks_queue];
    queues.iter().map(|queue| queue.traffic().0).sum()
}

/// Runs a history of a pipeline, which is started, in simulated time.
fn in_simulation<F: Future<Output = ()>>(history: impl FnOnce(Arc<SimPipeline>) -> F) {
    runtime().block_on(async {
        let first = Arc::new(SimPipeline::new(1, SCANNED));
        let _entered = simulated::enter(&first.world, 1);
        first.start();
        history(first).await;
    });
}

/// A second pipeline to the destination of the first one, which has restored content 1 to it. Both have a file `a.txt`.
async fn to_one_destination(first: &SimPipeline) -> Arc<SimPipeline> {
    write(&first.source, "a.txt", 1);
    sleep(MINUTE).await;
    assert_eq!(read(&first.destination, "a.txt"), Some(text(1)));
    let own = SimDisk::new(&first.world, Duration::from_nanos(1));
    write(&own, "a.txt", 2);
    write(&own, "b.csv", 3);
    let second = Arc::new(first.beside("two", &own, &first.destination));
    second.start();
    sleep(6 * HOUR).await;
    second
}

#[test]
fn a_second_pipeline_with_the_same_destination_restores_nothing_and_loses_nothing() {
    in_simulation(|first| async move {
        let second = to_one_destination(&first).await;
        assert_eq!(read(&first.destination, "a.txt"), Some(text(1)));
        assert_eq!(read(&first.destination, "b.csv"), None);
        assert_eq!((second.waiting(), dead_letters(&second)), (2, 0));
        write(&first.source, "a.txt", 4);
        sleep(MINUTE).await;
        assert_eq!(read(&first.destination, "a.txt"), Some(text(4)));
        assert_eq!((first.waiting(), dead_letters(&first)), (0, 0));
        assert_eq!(displaced(&first.destination), 0);
    });
}

#[test]
fn a_destination_that_is_taken_over_gets_what_waited_and_nothing_more_of_its_former_pipeline() {
    in_simulation(|first| async move {
        let second = to_one_destination(&first).await;
        first.destination.remove(OWNER);
        sleep(10 * MINUTE).await;
        assert_eq!(read(&first.destination, "a.txt"), Some(text(2)));
        assert_eq!(read(&first.destination, "b.csv"), Some(text(3)));
        assert_eq!((second.waiting(), dead_letters(&second)), (0, 0));
        write(&first.source, "a.txt", 5);
        sleep(HOUR).await;
        assert_eq!(read(&first.destination, "a.txt"), Some(text(2)));
        assert_eq!((first.waiting(), dead_letters(&first)), (1, 0));
    });
}

#[test]
fn two_pipelines_in_opposite_directions_bring_each_change_over_once() {
    in_simulation(|there| async move {
        let (here, beyond) = (&there.source, &there.destination);
        let back = Arc::new(there.beside("back", beyond, here));
        back.start();
        write(here, "a.txt", 1);
        write(beyond, "b.csv", 2);
        sleep(5 * MINUTE).await;
        write(beyond, "a.txt", 3);
        write(here, "b.csv", 4);
        sleep(5 * MINUTE).await;
        for disk in [here, beyond] {
            assert_eq!(read(disk, "a.txt"), Some(text(3)));
            assert_eq!(read(disk, "b.csv"), Some(text(4)));
            assert_eq!(displaced(disk), 0);
        }
        let all = || [&*there, &*back].map(|it| (sends(it), it.waiting(), dead_letters(it)));
        let before = all();
        sleep(24 * HOUR).await;
        // An announcement and a manifest for each content and pipeline.
        assert_eq!(before, [(8, 0, 0), (8, 0, 0)]);
        assert_eq!(all(), before);
    });
}
