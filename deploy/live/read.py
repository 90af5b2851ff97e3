#!/usr/bin/python3
"""Prints what Kafka holds under a topic prefix, read by confluent-kafka (librdkafka): JSON lines.

  read.py BROKER PREFIX

First a line {"topic", "partitions", "config"} for each topic, then one for each message, in the order of its partition:
{"topic", "partition", "offset", "key", "headers": {name: value}, "value"}, value null for a tombstone.
"""
import json
import sys

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, TopicPartition
from confluent_kafka.admin import AdminClient, ConfigResource


def text(b):
    return None if b is None else b.decode("utf-8")


def main(broker, prefix):
    admin = AdminClient({"bootstrap.servers": broker})
    found = {n: t for n, t in admin.list_topics(timeout=15).topics.items() if n.startswith(prefix)}
    resources = [ConfigResource(ConfigResource.Type.TOPIC, name) for name in sorted(found)]
    for resource, future in admin.describe_configs(resources).items() if resources else ():
        config = {name: entry.value for name, entry in future.result(timeout=15).items()}
        print(json.dumps({"topic": resource.name, "partitions": len(found[resource.name].partitions), "config": config}))
    consumer = Consumer({"bootstrap.servers": broker, "group.id": "live-reader", "enable.auto.commit": False,
                         "enable.partition.eof": True, "check.crcs": True, "fetch.wait.max.ms": 20,
                         "auto.offset.reset": "earliest"})
    parts = [TopicPartition(n, p, OFFSET_BEGINNING) for n in sorted(found) for p in found[n].partitions]
    consumer.assign(parts)
    open_ends = len(parts)
    while open_ends:
        m = consumer.poll(15)
        if m is None:
            sys.exit("read.py: nothing came for 15 s, %d partitions are not read to their end" % open_ends)
        if m.error():
            if m.error().code() != KafkaError._PARTITION_EOF:
                sys.exit("read.py: %s" % m.error())
            open_ends -= 1
            continue
        print(json.dumps({"topic": m.topic(), "partition": m.partition(), "offset": m.offset(), "key": text(m.key()),
                          "headers": {n: text(v) for n, v in m.headers() or ()}, "value": text(m.value())}))
    consumer.close()


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
