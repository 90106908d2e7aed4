"""The addresses of a running product, as black-box clients learn them: from endpoints.json and nothing else."""

from pathlib import Path

import msgspec

from adapters.kafka.settings import KafkaSettings
from deploy.local.paths import LOCAL
from schemas.errors import StackError

ENDPOINTS_PATH = LOCAL / "endpoints.json"


class Endpoints(msgspec.Struct, frozen=True):
    """What `freshet up` writes. `key_ring` is a path."""

    kafka: str
    redis: str
    topic_prefix: str
    key_ring: str

    def kafka_settings(self) -> KafkaSettings:
        """How this product's Kafka is reached."""
        return KafkaSettings(self.kafka, self.topic_prefix)


def load_endpoints(path: Path = ENDPOINTS_PATH) -> Endpoints:
    """The addresses in `path`; raises :class:`StackError` where nothing is up."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Endpoints)
    except FileNotFoundError:
        raise StackError(f"{path.name} does not exist: nothing is running; `freshet up` starts the stack") from None
    except msgspec.DecodeError as error:
        raise StackError(f"{path.name} does not say what a client needs: {error}") from None
