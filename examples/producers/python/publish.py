"""Publishes lines of JSON to Kafka, each checked by the topic's JSON Schema, as `weir publish` would.

    pip install -r requirements.txt
    python publish.py --brokers 127.0.0.1:9092 --topic order-events --schema ../../../schemas/order-events.json \
        --key-field /order_id events.ndjson

The exit code is 1 when a line was bad or not delivered; the others are sent.
"""

import argparse
import fileinput
import json
import sys

import jsonschema
from confluent_kafka import KafkaException, Producer

QUEUE_FULL_WAITS_MAX = 600
DELIVERY_TIMEOUT_S = 60


def text(value):
    """A string as it is, a whole number as its digits; nothing else is an identifier."""
    if isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return None


def conversation(event):
    """The chat conversation: the group, else both users, sorted as bytes and joined by ':'."""
    message = event.get("message", {})
    group = text(message.get("group_id"))
    if group:
        return group
    pair = [text(message.get("from")), text(message.get("to"))]
    return None if None in pair else ":".join(sorted(pair, key=str.encode))


def key_of(event, pointer):
    if pointer is None:
        return conversation(event)
    for name in pointer.removeprefix("/").split("/"):
        name = name.replace("~1", "/").replace("~0", "~")
        event = event.get(name) if isinstance(event, dict) else None
    return text(event)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--brokers", required=True)
    parser.add_argument("--topic", required=True)
    parser.add_argument("--schema", required=True)
    parser.add_argument("--key-field", help="JSON pointer to the key; without it, the chat conversation")
    parser.add_argument("files", nargs="*")
    args = parser.parse_args()

    with open(args.schema, encoding="utf-8") as file:
        schema = jsonschema.Draft202012Validator(json.load(file))
    producer = Producer({
        "bootstrap.servers": args.brokers,
        # A broker's word for each event, and none twice. The partitioner is Java's: librdkafka's own default puts keys on
        # other partitions than weir and Java clients do, and then events of one key lose their order.
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",
        "delivery.timeout.ms": DELIVERY_TIMEOUT_S * 1000,
    })
    bad = 0

    def delivered(error, message):
        nonlocal bad
        if error is not None:
            bad += 1
            print(f"not delivered: {error}", file=sys.stderr)

    with fileinput.input(args.files, encoding="utf-8") as lines:
        for line in lines:
            where = f"{lines.filename()}:{lines.filelineno()}"
            if not line.strip():
                continue
            try:
                event = json.loads(line)
                schema.validate(event)
            except (ValueError, jsonschema.ValidationError) as error:
                bad += 1
                reason = getattr(error, "message", error)
                print(f"{where}: {reason}", file=sys.stderr)
                continue
            value = line.rstrip("\r\n")
            for attempt in range(QUEUE_FULL_WAITS_MAX):
                try:
                    producer.produce(args.topic, value=value, key=key_of(event, args.key_field), on_delivery=delivered)
                    break
                except BufferError:
                    producer.poll(0.1)
            else:
                sys.exit("the producer's queue stays full: no broker takes events")
            producer.poll(0)
    bad += producer.flush(DELIVERY_TIMEOUT_S + 5)
    return 1 if bad else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KafkaException as error:
        sys.exit(f"error: {error}")
