"""A peer that implements the Python original's formats from their description: it compresses announced files into chunk
messages and records, or restores them. Tests run it opposite our workers to prove that they interoperate.

For comparison it also puts and reads as the original does: one chunk a request after a random sleep of 0.1 to 1 s
(`--sleep`), and the whole shard from its start for every file (`--whole-shard`).

    peer.py compress   --endpoint URL --files-queue NAME --chunks-queue NAME --stream NAME --folder DIR --count N
    peer.py decompress --endpoint URL --chunks-queue NAME --stream NAME --folder DIR --count N

Prints one line of JSON when it is done: {"files": N, "seconds": S}.
"""

import argparse
import base64
import bz2
import csv
import hashlib
import io
import json
import lzma
import os
import random
import time
import uuid

import boto3

CHUNK_BYTES = 400 * 1024
PREFIX = "test_location/"


def clients(endpoint):
    given = dict(endpoint_url=endpoint, region_name="us-east-1", aws_access_key_id="test", aws_secret_access_key="test")
    return boto3.client("sqs", **given), boto3.client("kinesis", **given)


def normalised(name, data):
    """The original's normal form of a file, which is what its format carries."""
    text = data.decode("utf-8")
    if name.endswith(".json"):
        return json.dumps(json.loads(text), separators=(",", ":")).encode()
    if name.endswith(".csv"):
        rows = csv.reader(io.StringIO(text))
        return "\n".join(",".join(row) for row in rows).encode()
    return " ".join(text.split()).encode()


def records_of(data):
    """The records of a file and how many stages they have gone through."""
    if len(data) <= CHUNK_BYTES:
        return [lzma.compress(data)], 1
    chunks = [lzma.compress(data[at : at + CHUNK_BYTES]) for at in range(0, len(data), CHUNK_BYTES)]
    joined = b"|".join(base64.b64encode(chunk) for chunk in chunks)
    if len(joined) < CHUNK_BYTES:
        return chunks, 1
    return [bz2.compress(joined[at : at + CHUNK_BYTES], 2) for at in range(0, len(joined), CHUNK_BYTES)], 2


def data_of(records, stages):
    """The file that records hold."""
    if stages == 1:
        return b"".join(lzma.decompress(record) for record in records)
    joined = b"".join(bz2.decompress(record) for record in records)
    return b"".join(lzma.decompress(base64.b64decode(chunk)) for chunk in joined.split(b"|"))


def receive(sqs, url):
    while True:
        answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=1, WaitTimeSeconds=5, VisibilityTimeout=120)
        for message in answer.get("Messages", []):
            return message


def compress(given):
    sqs, kinesis = clients(given.endpoint)
    files = sqs.get_queue_url(QueueName=given.files_queue)["QueueUrl"]
    chunks = sqs.get_queue_url(QueueName=given.chunks_queue)["QueueUrl"]
    for _ in range(given.count):
        message = receive(sqs, files)
        name = json.loads(message["Body"])["file_name"]
        with open(os.path.join(given.folder, name), "rb") as file:
            data = normalised(name, file.read())
        records, stages = records_of(data)
        shard, sequences = None, []
        for record in records:
            if given.sleep:
                time.sleep(random.uniform(0.1, 1))
            key = hashlib.md5((PREFIX + name).encode()).hexdigest()
            answer = kinesis.put_records(StreamName=given.stream, Records=[{"Data": record, "PartitionKey": key}])["Records"][0]
            shard = answer["ShardId"]
            sequences.append(answer["SequenceNumber"])
        body = {
            "ID": str(uuid.uuid4()),
            "file_name": PREFIX + name,
            "file_total_chunk": len(records),
            "shard_id": shard,
            # Sorted as text, like the original: a reader must sort by number.
            "sequence_number": sorted(sequences),
            "metadata": json.dumps({"name": "lzma" if stages == 1 else "lzma + bz2"}),
        }
        sqs.send_message(QueueUrl=chunks, MessageBody=json.dumps(body), MessageGroupId=shard, MessageDeduplicationId=body["ID"])
        sqs.delete_message(QueueUrl=files, ReceiptHandle=message["ReceiptHandle"])


def read_whole_shard(kinesis, stream, shard, wanted):
    """All records of the shard from its start, for the few of one file."""
    found = {}
    iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, ShardIteratorType="TRIM_HORIZON")["ShardIterator"]
    while iterator and len(found) < len(wanted):
        answer = kinesis.get_records(ShardIterator=iterator)
        found.update((r["SequenceNumber"], r["Data"]) for r in answer["Records"] if r["SequenceNumber"] in wanted)
        iterator = answer.get("NextShardIterator")
    return found


def read_each(kinesis, stream, shard, wanted):
    found = {}
    for sequence in wanted:
        start = dict(ShardIteratorType="AT_SEQUENCE_NUMBER", StartingSequenceNumber=sequence)
        iterator = kinesis.get_shard_iterator(StreamName=stream, ShardId=shard, **start)["ShardIterator"]
        while sequence not in found:
            answer = kinesis.get_records(ShardIterator=iterator, Limit=1)
            found.update((r["SequenceNumber"], r["Data"]) for r in answer["Records"])
            iterator = answer["NextShardIterator"]
    return found


def decompress(given):
    sqs, kinesis = clients(given.endpoint)
    chunks = sqs.get_queue_url(QueueName=given.chunks_queue)["QueueUrl"]
    for _ in range(given.count):
        message = receive(sqs, chunks)
        body = json.loads(message["Body"])
        read = read_whole_shard if given.whole_shard else read_each
        found = read(kinesis, given.stream, body["shard_id"], set(body["sequence_number"]))
        records = [found[sequence] for sequence in sorted(body["sequence_number"], key=int)]
        stages = {"lzma": 1, "lzma + bz2": 2}[json.loads(body["metadata"])["name"]]
        name = body["file_name"].removeprefix(PREFIX)
        with open(os.path.join(given.folder, name), "wb") as file:
            file.write(data_of(records, stages))
        sqs.delete_message(QueueUrl=chunks, ReceiptHandle=message["ReceiptHandle"])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["compress", "decompress"])
    for name in ["endpoint", "files-queue", "chunks-queue", "stream", "folder"]:
        parser.add_argument(f"--{name}")
    parser.add_argument("--count", type=int, default=1)
    parser.add_argument("--sleep", action="store_true")
    parser.add_argument("--whole-shard", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    {"compress": compress, "decompress": decompress}[given.role](given)
    print(json.dumps({"files": given.count, "seconds": time.monotonic() - began}))


main()
