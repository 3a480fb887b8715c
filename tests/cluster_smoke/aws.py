"""Sends "hello" through a FIFO queue, a stream and a bucket of LocalStack, and removes them again."""
import base64
import json
import os
import time
import urllib.request

HOST = "http://localstack.localstack:4566"
NAME = os.environ["NAME"]


def call(service, path="/", data=None, headers=None, method="POST"):
    # LocalStack tells services apart by the scope of the signature, which it does not check.
    headers = {"Authorization": f"AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/{service}/aws4_request, SignedHeaders=host, Signature=0",
               **(headers or {})}
    request = urllib.request.Request(HOST + path, data=data, headers=headers, method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return answer.read()


def target(service, prefix, version):
    def ask(action, **fields):
        headers = {"X-Amz-Target": f"{prefix}.{action}", "Content-Type": f"application/x-amz-json-{version}"}
        return json.loads(call(service, data=json.dumps(fields).encode(), headers=headers) or b"{}")
    return ask


sqs = target("sqs", "AmazonSQS", "1.0")
url = sqs("CreateQueue", QueueName=NAME + ".fifo", Attributes={"FifoQueue": "true"})["QueueUrl"]
assert url.startswith(HOST), f"the queue's URL {url} is not one that pods reach"
sqs("SendMessage", QueueUrl=url, MessageBody="hello", MessageGroupId="g", MessageDeduplicationId="d")
message = sqs("ReceiveMessage", QueueUrl=url, WaitTimeSeconds=5)["Messages"][0]
sqs("DeleteQueue", QueueUrl=url)
print("queue:", message["Body"])

kinesis = target("kinesis", "Kinesis_20131202", "1.1")
kinesis("CreateStream", StreamName=NAME, ShardCount=1)
deadline = time.monotonic() + 60
while kinesis("DescribeStreamSummary", StreamName=NAME)["StreamDescriptionSummary"]["StreamStatus"] != "ACTIVE":
    assert time.monotonic() < deadline, "the stream did not become active within 60 s"
    time.sleep(0.2)
put = kinesis("PutRecord", StreamName=NAME, Data=base64.b64encode(b"hello").decode(), PartitionKey="k")
iterator = kinesis("GetShardIterator", StreamName=NAME, ShardId=put["ShardId"], ShardIteratorType="AT_SEQUENCE_NUMBER",
                   StartingSequenceNumber=put["SequenceNumber"])["ShardIterator"]
record = kinesis("GetRecords", ShardIterator=iterator)["Records"][0]
kinesis("DeleteStream", StreamName=NAME)
print("stream:", base64.b64decode(record["Data"]).decode())

call("s3", f"/{NAME}", method="PUT")
call("s3", f"/{NAME}/greeting", data=b"hello", method="PUT")
print("bucket:", call("s3", f"/{NAME}/greeting", method="GET").decode())
call("s3", f"/{NAME}/greeting", method="DELETE")
call("s3", f"/{NAME}", method="DELETE")
