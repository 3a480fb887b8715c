"""Restores the files of a pipeline with `codec.format: Hybrid`, as a decompressor does: a reader of its messages and records in
another language, written from docs/src/internals/messages.md and worker/codec/FORMAT.md. It shows what a program needs that takes
files from a pipeline, and a test runs it opposite our compressor to prove that the documents say it.

    consumer.py --chunks-queue NAME [--receipts-queue NAME] --stream NAME --folder DIR [--count N] [--endpoint URL]

Ends after N manifests. A manifest that it refuses is named and stays in the queue, which makes it a dead letter after some
receives; the exit status is then 1. Prints one line of JSON with what it met.

It needs Python 3.11 and boto3. Region and credentials come from the environment, as boto3 reads them. It keeps a whole packed file
in memory, and does not compare versions: it restores in the order of the queue.
"""

import argparse
import io
import json
import os
import struct
import sys
import time
from collections import Counter
from pathlib import Path, PurePosixPath

import boto3

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "worker/codec/python-reference"))
from streampress_unpack import Damaged, unpack
from streampress_unpack.common import Reader, unzigzag
from streampress_unpack.container import blake3

HEADER = struct.Struct(">4s16s16sII16s")
TRACE_BYTES = 25
IS_LAST, HAS_TRACE, HAS_DESCRIPTION = 1, 2, 4
NEWEST_RECORD, VERSIONS_WITH_RECORDS = 3, (1, 2, 3)
MOST_KEPT_BUNDLES = 8
# The queue gives a message to no other consumer for so long: enough for all files of a batch.
VISIBILITY_SECONDS = 600


class Refused(Exception):
    """A message, a record or a file is not as the documents say."""


def need(is_right, problem):
    if not is_right:
        raise Refused(problem)


def digest(data):
    return blake3(data).digest()


class Consumer:
    def __init__(self, given):
        self.sqs, self.kinesis = (boto3.client(service, endpoint_url=given.endpoint) for service in ("sqs", "kinesis"))
        self.chunks = self.sqs.get_queue_url(QueueName=given.chunks_queue)["QueueUrl"]
        self.receipts = given.receipts_queue and self.sqs.get_queue_url(QueueName=given.receipts_queue)["QueueUrl"]
        self.stream, self.folder, self.met, self.bundles = given.stream, Path(given.folder), Counter(), {}

    def run(self, count):
        while self.met["restored"] + self.met["refused"] < count:
            answer = self.sqs.receive_message(
                QueueUrl=self.chunks, MaxNumberOfMessages=10, WaitTimeSeconds=20, VisibilityTimeout=VISIBILITY_SECONDS,
                AttributeNames=["MessageGroupId", "MessageDeduplicationId"])
            refused = set()
            for message in answer.get("Messages", []):
                group = message["Attributes"]["MessageGroupId"]
                # What comes after a refused message in its group is not to overtake it.
                if group in refused:
                    continue
                try:
                    self.take(json.loads(message["Body"]), message["Attributes"])
                except (Refused, Damaged) as problem:
                    print(f"{message['MessageId']}: {problem}", file=sys.stderr)
                    refused.add(group)
                    self.met["refused"] += 1
                else:
                    self.sqs.delete_message(QueueUrl=self.chunks, ReceiptHandle=message["ReceiptHandle"])
                    self.met["restored"] += 1

    def take(self, manifest, attributes):
        """Restore the file of a manifest."""
        version, file = manifest["version"], manifest["file"]
        need(version in VERSIONS_WITH_RECORDS, f"{file['name']}: a manifest of version {version}")
        place = manifest.get("bundle")
        if place:
            bundle = self.bundle(manifest)
            end = place["offset"] + file["bytes"] - place["prefix"]
            content = bundle[:place["prefix"]] + bundle[place["offset"]:end]
            need(place["prefix"] <= file["bytes"] and end <= len(bundle), "the file lies outside of its bundle")
        else:
            content = self.unpack(self.packed(manifest, file_id(file), manifest["attempt"]))
        need(len(content) == file["bytes"], f"{file['name']} has {len(content)} bytes instead of {file['bytes']}")
        need(digest(content).hex() == file["hash"], f"{file['name']} has another hash")
        self.write(file, content)
        if self.receipts:
            self.send_receipt(manifest, attributes)

    def bundle(self, manifest):
        """The unpacked bundle. Its files follow one another in the queue, so the last ones are kept."""
        place = manifest["bundle"]
        self.met["files of bundles"] += 1
        if place["id"] not in self.bundles:
            bundle = self.unpack(self.packed(manifest, place["id"], "bundle"))
            need(len(bundle) == place["bytes"], f"a bundle of {len(bundle)} bytes instead of {place['bytes']}")
            while len(self.bundles) >= MOST_KEPT_BUNDLES:
                del self.bundles[next(iter(self.bundles))]
            self.bundles[place["id"]] = bundle
            self.met["bundles"] += 1
        return self.bundles[place["id"]]

    def unpack(self, packed):
        content = b"".join(unpack(io.BytesIO(packed)))
        self.met[f"packed files of version {packed[4]}"] += 1
        return content

    def packed(self, manifest, owner, attempt):
        """The packed file that the records of a manifest hold."""
        (kind, positions), = manifest["records"].items()
        need(kind in ("here", "listed") and positions, f"records: {kind}")
        self.met[kind] += 1
        if kind == "listed":
            parts = [open_record(record, owner, attempt, index)[1] for index, record in enumerate(self.fetch(positions))]
            positions = json.loads(b"".join(parts))
        opened = [open_record(record, owner, attempt, index) for index, record in enumerate(self.fetch(positions))]
        self.met["records"] += len(opened)
        heads = [head for head, _ in opened if head]
        if heads:
            is_last = [head["flags"] & IS_LAST for head in heads]
            need(is_last == [0] * (len(opened) - 1) + [1], "the last record is not the last one")
            need(len({head["packing"] for head in heads}) == 1, "the records are of several packings")
            if heads[0]["description"] is not None:
                check_description(heads[0]["description"], manifest)
                self.met["descriptions"] += 1
        return b"".join(payload for _, payload in opened)

    def fetch(self, positions):
        """The records at these positions, in their order. Between them lie records of other files."""
        found, wanted = {}, {}
        for position in positions:
            wanted.setdefault(position["shard"], set()).add(position["seq"])
        for shard, missing in wanted.items():
            first, last = (end(missing, key=int) for end in (min, max))
            iterator = self.kinesis.get_shard_iterator(
                StreamName=self.stream, ShardId=shard, ShardIteratorType="AT_SEQUENCE_NUMBER",
                StartingSequenceNumber=first)["ShardIterator"]
            while missing:
                need(iterator, f"{shard} ends before {last}")
                answer = self.kinesis.get_records(ShardIterator=iterator, Limit=min(len(missing), 1000))
                iterator, records = answer.get("NextShardIterator"), answer["Records"]
                for record in records:
                    if record["SequenceNumber"] in missing:
                        missing.remove(record["SequenceNumber"])
                        found[shard, record["SequenceNumber"]] = record["Data"]
                is_behind = not records or int(records[-1]["SequenceNumber"]) < int(last)
                need(not missing or is_behind, f"{shard} does not have {missing}")
                if missing and not records:
                    # A shard is read five times a second at most.
                    time.sleep(0.2)
        return [found[position["shard"], position["seq"]] for position in positions]

    def write(self, file, content):
        """The file appears whole, with its modification time."""
        name = PurePosixPath(file["name"])
        need(not name.is_absolute() and ".." not in name.parts, f"{name} does not lie in a folder")
        target = self.folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        partial = target.with_name(target.name + ".part")
        partial.write_bytes(content)
        os.utime(partial, ns=(file["modifiedNanos"], file["modifiedNanos"]))
        os.replace(partial, target)

    def send_receipt(self, manifest, attributes):
        """Tells the compressors that the file is restored, before the manifest is deleted."""
        receipt = {"version": 1, "verdict": "restored", "file": manifest["file"], "fileVersion": manifest["fileVersion"]}
        receipt |= {field: manifest[field] for field in ("observed", "traceparent") if field in manifest}
        self.sqs.send_message(
            QueueUrl=self.receipts, MessageBody=json.dumps(receipt), MessageGroupId=attributes["MessageGroupId"],
            MessageDeduplicationId=attributes["MessageDeduplicationId"][:116] + "-restored")
        self.met["receipts"] += 1


def file_id(file):
    parts = (file["location"].rstrip("/"), file["name"], file["hash"])
    return digest("\0".join(parts).encode()).hex()


def open_record(record, owner, attempt, index):
    """What a record says before its payload, None for a list and for earlier releases; and the payload."""
    need(len(record) >= HEADER.size, "a record of another program")
    magic, its_owner, its_attempt, its_index, size, its_hash = HEADER.unpack_from(record)
    need(magic[:3] == b"SPR" and magic[3:].isdigit(), "a record of another program")
    release = int(magic[3:])
    need(release <= NEWEST_RECORD, f"a record of a newer release: {magic}")
    owners = (digest(owner.encode())[:16], digest(attempt.encode())[:16])
    need((its_owner, its_attempt, its_index) == (*owners, index), "a record of another file or attempt, or another one of it")
    rest = record[HEADER.size + (TRACE_BYTES if release == 2 else 0):]
    need(len(rest) == size and digest(rest)[:16] == its_hash, f"record {index} is damaged")
    if release < 3:
        return None, rest
    fields = Reader(rest, "record")
    flags, packing = struct.unpack(">BI", fields.take(5))
    trace = fields.take(TRACE_BYTES) if flags & HAS_TRACE else None
    description = fields.take(*struct.unpack(">I", fields.take(4))) if flags & HAS_DESCRIPTION else None
    head = {"flags": flags, "packing": packing, "trace": trace, "description": description}
    return head, rest[fields.place:]


def read_description(data):
    """What the first record says of all its files."""
    fields, before = Reader(data, "description"), {}

    def text(field):
        common = fields.varint()
        before[field] = before.get(field, b"")[:common] + fields.string()
        return before[field].decode()

    def difference(field):
        before[field] = (before.get(field, 0) + unzigzag(fields.varint())) % (1 << 64)
        return before[field]

    need(fields.byte() == 1, "a description of a newer release")
    said = {"location": text("location"), "kind": fields.byte("kind", 2)}
    if said["kind"] == 0:
        said["attempt"] = text("attempt")
    else:
        said |= {"id": fields.take(32).hex(), "bytes": fields.varint(), "prefix": fields.varint()}
    said["files"] = []
    for _ in range(fields.varint()):
        file = {"name": text("name"), "bytes": fields.varint(), "hash": fields.take(32).hex()}
        file |= {"modifiedNanos": difference("modifiedNanos"), "fileVersion": text("fileVersion"), "flags": fields.byte()}
        file |= {"announcement": text("announcement"), "announcedMillis": difference("announcedMillis")}
        if said["kind"] == 1:
            file["offset"] = difference("offset")
        said["files"].append(file)
    fields.end()
    return said


def check_description(data, manifest):
    """The first record says of the file what the manifest says."""
    said, file, place = read_description(data), manifest["file"], manifest.get("bundle")
    expected = {field: file[field] for field in ("name", "bytes", "hash", "modifiedNanos")}
    expected["announcedMillis"] = manifest["announcedMillis"]
    if "fileVersion" in manifest:
        expected["fileVersion"] = manifest["fileVersion"]
    if "observed" in manifest:
        expected["announcement"] = manifest["observed"]["announcement"]
    if place:
        expected["offset"] = place["offset"]
        is_right = all(said[field] == place[field] for field in ("id", "bytes", "prefix"))
    else:
        is_right = said["attempt"] == manifest["attempt"] and len(said["files"]) == 1
    need(is_right and said["location"] == file["location"], "the first record describes other records")
    need(any(expected.items() <= one.items() for one in said["files"]), f"the first record does not describe {file['name']}")


def main():
    parser = argparse.ArgumentParser()
    for name in ("chunks-queue", "stream", "folder"):
        parser.add_argument(f"--{name}", required=True)
    for name in ("receipts-queue", "endpoint"):
        parser.add_argument(f"--{name}")
    parser.add_argument("--count", type=int, default=1)
    given = parser.parse_args()
    consumer = Consumer(given)
    consumer.run(given.count)
    print(json.dumps(consumer.met))
    sys.exit(1 if consumer.met["refused"] else 0)


if __name__ == "__main__":
    main()
