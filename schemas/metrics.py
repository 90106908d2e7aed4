"""All metrics of Freshet: of the job and of the gateway. `docs/data-engineers/metrics.md` is written from this file.

Names follow Prometheus: counters end in `_total`, durations are in seconds. No label holds a user, an item or a text
that a producer chooses, so the number of series is bounded.

The job hands its metrics to Flink's reporters in the group `freshet`, with the labels as groups before it, because
Flink puts the names of all groups into that of a metric. `deploy/prometheus/prometheus.yml` removes everything up to
`freshet`: `flink_taskmanager_job_task_operator_reason_freshet_rejects_total{reason=…}` → `freshet_rejects_total`.
"""

from typing import Final, Literal, NamedTuple

from schemas.rejects import RejectReason
from schemas.store import WriteOutcome

Kind = Literal["counter", "gauge", "histogram"]
GROUP: Final = "freshet"
LATENCY_S: Final = (0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0)
CALL_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
WITHDRAWAL_S: Final = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 30.0, 300.0)
RECORDS: Final = (1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
REQUEST_S: Final = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5)
AGE_S: Final = (1.0, 10.0, 60.0, 600.0, 3_600.0, 21_600.0, 86_400.0, 604_800.0)
EVENT_OUTCOMES: Final = ("accepted", "duplicate", "denied", "rejected")
LIST_OUTCOMES: Final = {outcome: outcome.name.lower() for outcome in WriteOutcome}


class Metric(NamedTuple):
    """One metric. `name` has no `freshet_` yet; `buckets` are the upper bounds of a histogram, without +Inf.

    `values` are those of the only label, if they are known before: their series exist from the start. `by` is the
    operator of the job that has it, or `gateway`. `once` metrics exist only after what they count has happened once.
    """

    name: str
    kind: Kind
    by: str
    meaning: str
    unit: str = ""
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    once: bool = False

    @property
    def full_name(self) -> str:
        """The name in Prometheus; a histogram has three, which end in `_bucket`, `_sum` and `_count`."""
        return f"{GROUP}_{self.name}"

    def exported(self) -> tuple[str, ...]:
        """The names of its series in Prometheus.

        >>> REDIS.exported()
        ('freshet_redis_seconds_bucket', 'freshet_redis_seconds_sum', 'freshet_redis_seconds_count')
        """
        if self.kind == "histogram":
            return tuple(f"{self.full_name}_{part}" for part in ("bucket", "sum", "count"))
        return (self.full_name,)


def _counter(by: str, name: str, meaning: str) -> Metric:
    return Metric(name, "counter", by, meaning)


EVENTS: Final = Metric(
    "events_total",
    "counter",
    "personalise",
    "Interactions by outcome. `denied`: consent does not allow them.",
    labels=("outcome",),
    values=EVENT_OUTCOMES,
)
REJECTS: Final = Metric(
    "rejects_total",
    "counter",
    "personalise",
    "Records that went to `dead-letters`: interactions, consents, commands.",
    labels=("reason",),
    values=tuple(reason.value for reason in RejectReason),
)
LISTS: Final = Metric(
    "lists_total",
    "counter",
    "personalise",
    "Lists by what Redis did with them. All but `written` leave the list in Redis as it is: `stale` (a newer one is "
    "there), `no_consent`, `gone` (erased), `no_room` (`maxmemory` is reached).",
    labels=("outcome",),
    values=tuple(LIST_OUTCOMES.values()),
)
EVENT_TO_LIST: Final = Metric(
    "event_to_list_seconds",
    "histogram",
    "personalise",
    "From the event's append to Kafka, by the broker's clock, until Redis has acknowledged the list.",
    "seconds",
    buckets=LATENCY_S,
)
ELEMENT: Final = Metric(
    "element_records",
    "histogram",
    "personalise",
    "Records that are ranked and written together: the elements of all buckets that have reached a task.",
    "records",
    buckets=RECORDS,
)
SCORING: Final = Metric(
    "scoring_seconds",
    "histogram",
    "personalise",
    "Making the lists of such an element: model, rules, encoding.",
    "seconds",
    buckets=CALL_S,
)
REDIS: Final = Metric(
    "redis_seconds",
    "histogram",
    "personalise",
    "A round trip to Redis that was answered.",
    "seconds",
    buckets=CALL_S,
)
REDIS_RETRIES: Final = _counter(
    "personalise, popular, learn", "redis_retries_total", "Calls that Redis did not answer."
)
UNREAD: Final = Metric(
    "oldest_unread_consent_seconds",
    "gauge",
    "personalise",
    "Upper bound for the age of the oldest consent change that the job has not read. Take the maximum of all tasks.",
    "seconds",
)
LAG: Final = Metric(
    "unread_records",
    "gauge",
    "personalise",
    "Lag: records of `interactions` and `consents` behind the offsets that the job has committed with its last "
    "checkpoint. Take the maximum of all tasks.",
    "records",
)
MODEL_BUCKETS: Final = Metric(
    "model_buckets",
    "gauge",
    "personalise",
    "Buckets whose lists this model makes: which versions are in service. After 16 versions in one worker, `other`.",
    "buckets",
    labels=("model",),
)
WITHDRAWAL: Final = Metric(
    "withdrawal_seconds",
    "histogram",
    "personalise",
    "From a withdrawal's append to Kafka until it is in effect in Redis.",
    "seconds",
    buckets=WITHDRAWAL_S,
)
RECORDS_GIVEN_UP: Final = _counter(
    "personalise, popular", "records_given_up_total", "Records that failed twice (a bug): reason `not_carried_out`."
)
LISTS_REFRESHED: Final = _counter("personalise", "lists_refreshed_total", "Lists renewed because they had aged.")
LISTS_WITHOUT_MODEL: Final = _counter(
    "personalise",
    "lists_without_model_total",
    "Lists for which the model had no answer: their users got popular items.",
)
PROFILES_FORGOTTEN: Final = _counter("personalise", "profiles_forgotten_total", "Profiles that ended by their age.")
SEGMENTS_LEFT_OUT: Final = _counter(
    "personalise", "segments_left_out_total", "Events not counted for a segment, because there are too many segments."
)
USERS_RELINKED: Final = _counter("personalise", "users_relinked_total", "Users renamed by a key rotation.")
USERS_REBUILT: Final = _counter(
    "personalise", "users_rebuilt_total", "Users written again to Redis, which had lost data."
)
MODELS_FALLEN_BACK: Final = _counter(
    "personalise", "models_fallen_back_total", "Times that a bucket fell back from a model that failed."
)
CATALOGUE_UNREAD: Final = _counter(
    "personalise",
    "catalogue_unread_total",
    "Records of the catalogue that could not be read: their items are withdrawn.",
)
REMOTE_CALLS: Final = _counter("personalise", "remote_calls_total", "Calls to the model server.")
REMOTE_FAILURES: Final = _counter("personalise", "remote_failures_total", "Calls to the model server that failed.")
REMOTE_WAITED: Final = Metric(
    "remote_waited_seconds_total", "counter", "personalise", "Time spent waiting for the model server.", "seconds"
)
LISTS_BY_FALLBACK: Final = _counter(
    "personalise", "lists_by_fallback_total", "Lists that the local model made instead of the model server."
)
SPANS_DROPPED: Final = _counter(
    "personalise",
    "spans_dropped_total",
    "Spans of traces that the collector did not take, or that were too many. Lists are not affected.",
)
PERSONALISE_COUNTERS: Final = (
    LISTS_REFRESHED,
    LISTS_WITHOUT_MODEL,
    PROFILES_FORGOTTEN,
    SEGMENTS_LEFT_OUT,
    USERS_RELINKED,
    USERS_REBUILT,
    RECORDS_GIVEN_UP,
    REDIS_RETRIES,
    MODELS_FALLEN_BACK,
    CATALOGUE_UNREAD,
    REMOTE_CALLS,
    REMOTE_FAILURES,
    REMOTE_WAITED,
    LISTS_BY_FALLBACK,
    SPANS_DROPPED,
)
CONSENTS_GRANTED: Final = _counter("personalise", "consents_granted_total", "Consents that took effect.")
CONSENTS_WITHDRAWN: Final = _counter("personalise", "consents_withdrawn_total", "Withdrawals that took effect.")
CONSENTS_REFUSED: Final = _counter(
    "personalise", "consents_refused_total", "Consents refused: the user was erased, or has withdrawn since."
)
CONSENTS_EXPIRED: Final = _counter("personalise", "consents_expired_total", "Consents that ended by their age.")
USERS_ERASED: Final = _counter("personalise", "users_erased_total", "Erasures.")
EVENTS_DENIED: Final = _counter(
    "personalise", "events_denied_total", "Interactions without consent, counted when the audit trail's head is signed."
)
AUDIT_RECORDS: Final = _counter("personalise", "audit_records_total", "Records of the audit trail.")
PRIVACY: Final = (
    CONSENTS_GRANTED,
    CONSENTS_WITHDRAWN,
    CONSENTS_REFUSED,
    CONSENTS_EXPIRED,
    USERS_ERASED,
    EVENTS_DENIED,
    AUDIT_RECORDS,
)
MODEL_UPDATES: Final = _counter("learn", "model_updates_total", "Updates of the online model published.")
LESSONS_LEFT_OUT: Final = _counter("learn", "lessons_left_out_total", "Lessons that could not be learned from (a bug).")
SIMILAR_LISTS: Final = _counter("learn", "similar_lists_total", "Lists of similar items published.")
TRIAL_LISTS: Final = _counter("judge", "trial_lists_total", "Pairs of lists that trials compared.")
MODELS_FOUND_WORSE: Final = _counter("judge", "models_found_worse_total", "Models rolled back because they are worse.")
DRIFT_ALARMS: Final = _counter(
    "feedback", "drift_alarms_total", "Alarms about drift: see the topic `metrics` for what."
)
FEEDBACK_LABELS: Final = ("model", "arm", "surface")
FEEDBACK: Final = {
    what: Metric(f"feedback_{what}_total", "counter", "feedback", meaning, labels=FEEDBACK_LABELS, once=True)
    for what, meaning in (
        ("lists", "Lists that users saw."),
        ("impressions", "Items that users saw in lists."),
        ("clicks", "Clicks on items of lists."),
        ("purchases", "Purchases of items of lists."),
    )
}
RESTORES_PAST_TRANSACTIONS: Final = _counter(
    "snapshot-guard",
    "restores_past_transactions_total",
    "Restores so late that Kafka had ended the sinks' transactions: some output may be lost.",
)
JOB: Final = (
    EVENTS,
    REJECTS,
    LISTS,
    EVENT_TO_LIST,
    ELEMENT,
    SCORING,
    REDIS,
    REDIS_RETRIES,
    UNREAD,
    LAG,
    MODEL_BUCKETS,
    WITHDRAWAL,
    *[metric for metric in PERSONALISE_COUNTERS if metric is not REDIS_RETRIES],
    *PRIVACY,
    MODEL_UPDATES,
    LESSONS_LEFT_OUT,
    SIMILAR_LISTS,
    TRIAL_LISTS,
    MODELS_FOUND_WORSE,
    DRIFT_ALARMS,
    *FEEDBACK.values(),
    RESTORES_PAST_TRANSACTIONS,
)
"""All metrics of the job."""

REQUEST_SECONDS: Final = Metric(
    "gateway_request_seconds",
    "histogram",
    "gateway",
    "Time from receiving a request to handing over the last byte of its response. `reason` is the kind of list; "
    "`refused` is an error.",
    "seconds",
    labels=("route", "reason", "role"),
    buckets=REQUEST_S,
    once=True,
)
ANSWERS: Final = Metric(
    "gateway_answers_total",
    "counter",
    "gateway",
    "Responses by route and status.",
    labels=("route", "status"),
    once=True,
)
SHED: Final = Metric(
    "gateway_shed_total",
    "counter",
    "gateway",
    "Reads shed under overload: they got a popular list after a pause.",
)
LIST_AGE: Final = Metric(
    "gateway_list_age_seconds",
    "histogram",
    "gateway",
    "Age of users' own lists when they are read; every 16th read is measured.",
    "seconds",
    buckets=AGE_S,
)
GATEWAY_REDIS: Final = Metric(
    "gateway_redis",
    "gauge",
    "gateway",
    "State of a tenant's Redis: 1 for the current one of up, closed (popular lists only) and away. "
    "The state `complaints` counts problems of its configuration.",
    labels=("tenant", "state"),
)
GATEWAY_CATALOGUE: Final = Metric(
    "gateway_catalogue_unread",
    "gauge",
    "gateway",
    "Records of a tenant's catalogue that could not be used since the start; their items are withdrawn.",
    "records",
    labels=("tenant",),
)
IGNORED: Final = Metric(
    "gateway_ignored_parameters_total",
    "counter",
    "gateway",
    "Unknown query parameters of read routes, which were ignored.",
    labels=("route",),
    once=True,
)
GATEWAY_SPANS_DROPPED: Final = Metric(
    "gateway_spans_dropped_total",
    "counter",
    "gateway",
    "Spans of traces that the collector did not take, or that were too many. Requests are not affected.",
)
GATEWAY: Final = (
    REQUEST_SECONDS,
    ANSWERS,
    SHED,
    LIST_AGE,
    GATEWAY_REDIS,
    GATEWAY_CATALOGUE,
    IGNORED,
    GATEWAY_SPANS_DROPPED,
)
"""All metrics of the gateway."""

FLINK: Final = {
    "flink_jobmanager_job_lastCompletedCheckpointId": "The last checkpoint; it stops growing when checkpoints stop.",
    "flink_jobmanager_job_lastCheckpointCompletedTimestamp": "When the last checkpoint completed, in ms since 1970.",
    "flink_jobmanager_job_lastCheckpointDuration": "How long the last checkpoint took, in ms.",
    "flink_jobmanager_job_lastCheckpointSize": "How many bytes the last checkpoint wrote.",
    "flink_jobmanager_job_numRestarts": "Restarts since the submission.",
    "flink_jobmanager_job_runningTime": "For how long the job has been running, in ms; 0 or absent while it is not.",
    "flink_taskmanager_job_task_operator_failedCommittables": "Transactions of a sink that could not be committed.",
    "flink_taskmanager_job_task_busyTimeMsPerSecond": "How busy a task is, of 1,000 ms.",
    "flink_taskmanager_job_task_backPressuredTimeMsPerSecond": "For how long a task waits for the next, of 1,000 ms.",
    "flink_taskmanager_Status_JVM_GarbageCollector_All_TimeMsPerSecond": "Time spent collecting garbage, of 1,000 ms.",
    "flink_taskmanager_Status_JVM_Memory_Heap_Used": "Bytes of the heap in use.",
    "flink_taskmanager_Status_JVM_Memory_Heap_Max": "The limit of the heap in bytes.",
}
"""Flink's own metrics that alerts and dashboards use; they keep Flink's names and units."""
