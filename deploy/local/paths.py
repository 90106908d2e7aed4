"""The paths of this checkout's files: all are below the checkout, so two checkouts never interfere."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LOCAL = ROOT / ".local"
JARS = LOCAL / "jars"
CACHE = LOCAL / "cache"
FLINK_CONF = ROOT / "flink-conf.yaml"
POM = ROOT / "deploy" / "local" / "jars" / "pom.xml"
SUMS = ROOT / "deploy" / "local" / "jars" / "SHA256SUMS"
KAFKA_LOG4J = ROOT / "deploy" / "local" / "kafka-log4j2.properties"
SUPERVISE = ROOT / "deploy" / "local" / "supervise.py"
LOG4J = ROOT / "deploy" / "logs"
