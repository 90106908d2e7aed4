package freshet;

import java.nio.charset.StandardCharsets;
import java.util.TreeMap;

import org.apache.flink.api.common.state.ListState;
import org.apache.flink.api.common.state.ListStateDescriptor;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.metrics.Counter;
import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.runtime.state.StateInitializationContext;
import org.apache.flink.runtime.state.StateSnapshotContext;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Hands the raw records on as they are, and refuses a snapshot that this job must not restore.
 *
 * Every checkpoint and savepoint holds the identity of the deployment (lines `name=value`, jobs/deployment.py) and the
 * time at which it was taken. A job that restores one compares both before it reads a record, also when it recovers by
 * itself, and ends in FAILED where they do not fit: a restart would restore the same snapshot again.
 * So does a job whose TaskManager lacks what the connector needs to read every codec of Kafka. The snapshot also holds
 * the time at which Kafka ends the oldest of the sinks' transactions that belong to it. A later restore is reported,
 * because some of what they wrote may be lost.
 */
public class SnapshotGuard extends AbstractStreamOperator<byte[]> implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;
    private static final String TAKEN_AT = "taken-at=";
    private static final String TRANSACTIONS_END = "transactions-end=";

    private final String pins;
    private final long keptMs;
    private final long transactionMs;
    private transient TreeMap<Long, Long> snapshotTimes;
    private transient ListState<byte[]> identity;
    transient Counter restoresPastTransactions;
    transient long transactionsBeganMs;

    public SnapshotGuard(String pins, long keptMs, long transactionMs) {
        this.pins = pins;
        this.keptMs = keptMs;
        this.transactionMs = transactionMs;
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        output.collect(element);
    }

    @Override
    public void initializeState(StateInitializationContext context) throws Exception {
        super.initializeState(context);
        expectZstd();
        snapshotTimes = new TreeMap<>();
        transactionsBeganMs = System.currentTimeMillis();
        restoresPastTransactions = getMetricGroup().addGroup("freshet").counter("restores_past_transactions_total");
        identity = context.getOperatorStateStore()
                .getListState(new ListStateDescriptor<>("deployment-v1", BytePrimitiveArraySerializer.INSTANCE));
        for (byte[] restored : identity.get()) {
            compare(new String(restored, StandardCharsets.UTF_8));
        }
    }

    /**
     * Each subtask holds the identity, and gets one back where as many are restored; of more, some get none, and one
     * that refuses ends the job. A union list would reach all of them, but Flink cannot take a snapshot of a job that
     * has one and whose subtasks end one after the other, as those of a job that is stopped with a savepoint do.
     */
    @Override
    public void snapshotState(StateSnapshotContext context) throws Exception {
        super.snapshotState(context);
        long nowMs = System.currentTimeMillis();
        snapshotTimes.put(context.getCheckpointId(), nowMs);
        identity.clear();
        long endMs = transactionsBeganMs + transactionMs;
        String held = pins + TAKEN_AT + nowMs + "\n" + TRANSACTIONS_END + endMs + "\n";
        identity.add(held.getBytes(StandardCharsets.UTF_8));
    }

    /**
     * The sinks commit what they wrote before this checkpoint. What they have not committed began after it: at the next
     * checkpoint that is an interval ago, and after an outage of Redis, in which no checkpoint completes, an hour.
     */
    @Override
    public void notifyCheckpointComplete(long checkpoint) throws Exception {
        super.notifyCheckpointComplete(checkpoint);
        transactionsBeganMs = snapshotTimes.getOrDefault(checkpoint, transactionsBeganMs);
        snapshotTimes.headMap(checkpoint, true).clear();
    }

    private void expectZstd() {
        try {
            Class.forName("com.github.luben.zstd.ZstdInputStreamNoFinalizer");
        } catch (ClassNotFoundException missing) {
            refuse("zstd-jni is not in the lib folder of this TaskManager: one batch that a producer has compressed with "
                    + "zstd would stop the job for good. Put zstd-jni beside flink-sql-connector-kafka.");
        }
    }

    private void compare(String held) {
        for (String line : held.split("\n")) {
            int equals = line.indexOf('=');
            if (line.startsWith(TAKEN_AT)) {
                compareAge(Long.parseLong(line.substring(equals + 1)));
            } else if (line.startsWith(TRANSACTIONS_END)) {
                compareTransactions(Long.parseLong(line.substring(equals + 1)));
            } else if (equals > 0) {
                compareValue(line.substring(0, equals), line.substring(equals + 1));
            }
        }
    }

    private void compareValue(String name, String value) {
        for (String line : pins.split("\n")) {
            if (line.startsWith(name + "=") && !line.equals(name + "=" + value)) {
                refuse("The snapshot was taken with " + name + " " + value + ", and this job has "
                        + line.substring(name.length() + 1) + ": its state would be out of reach of consents and "
                        + "erasures. Restore it with the settings it was taken with, or submit without a snapshot and "
                        + "with --new-deployment.");
            }
        }
    }

    private void compareAge(long takenMs) {
        long ageMs = System.currentTimeMillis() - takenMs;
        if (ageMs > keptMs) {
            refuse("The snapshot is " + ageMs / 3600000L + " hours old, and privacy.snapshots_kept_ms allows "
                    + keptMs / 3600000L + ": withdrawals and erasures since may not be readable any more. Submit "
                    + "without a snapshot: profiles are lost, consents are read again from the topic.");
        }
    }

    /**
     * Kafka aborts what the sinks wrote for a checkpoint and did not commit in time; they go on without it. Whether there
     * was any is known a moment later: each such transaction is an error in the log and a failed committable.
     */
    private void compareTransactions(long endMs) {
        long lateMs = System.currentTimeMillis() - endMs;
        if (lateMs > 0) {
            restoresPastTransactions.inc();
            LOG.warn("Kafka ended the transactions of this snapshot " + lateMs / 1000L + " s ago: if the job ended between "
                    + "that checkpoint and its commit, the clean events, dead letters and audit records of that one "
                    + "checkpoint are lost. Then the metric failedCommittables of the sinks is above 0, an error in this "
                    + "log names each transaction, and `freshet audit verify` names the audit records.");
        }
    }

    private void refuse(String why) {
        throw new SuppressRestartsException(new IllegalStateException(why));
    }
}
