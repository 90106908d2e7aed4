"""The local stack: Kafka, Redis and a Flink session cluster as plain processes, without containers or root."""
