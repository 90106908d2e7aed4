package freshet;

import static org.junit.jupiter.api.Assertions.assertArrayEquals;
import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;


import org.apache.flink.runtime.checkpoint.OperatorSubtaskState;
import org.apache.flink.runtime.execution.SuppressRestartsException;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.Test;

class SnapshotGuardTest {

    private static final String PINS = "job.buckets=64\nredis.prefix=\"a=b\"\n";
    private static final long HOUR_MS = 3_600_000;

    @Test
    void recordsAreHandedOnAsTheyAre() throws Exception {
        byte[] row = {1};
        try (var harness = harnessOf(new SnapshotGuard(PINS, HOUR_MS, HOUR_MS))) {
            harness.open();
            harness.processElement(new StreamRecord<>(row));
            assertArrayEquals(row, harness.extractOutputValues().get(0));
            assertEquals(1, harness.getOutput().size());
        }
    }

    @Test
    void aSnapshotWithTheSamePinsIsRestored() throws Exception {
        SnapshotGuard guard = new SnapshotGuard(PINS, HOUR_MS, HOUR_MS);
        restore(snapshotOf(new SnapshotGuard(PINS, HOUR_MS, HOUR_MS)), guard);
        assertEquals(0, guard.restoresPastTransactions.getCount());
    }

    @Test
    void aSnapshotWithoutAPinThatIsNewIsRestored() throws Exception {
        restore(snapshotOf(new SnapshotGuard("", HOUR_MS, HOUR_MS)), new SnapshotGuard(PINS, HOUR_MS, HOUR_MS));
    }

    @Test
    void aSnapshotWithAnotherPinIsRefusedForGood() throws Exception {
        OperatorSubtaskState snapshot = snapshotOf(new SnapshotGuard(PINS, HOUR_MS, HOUR_MS));
        String other = PINS.replace("64", "640");
        String why = refusal(snapshot, new SnapshotGuard(other, HOUR_MS, HOUR_MS));
        assertTrue(why.startsWith("The snapshot was taken with job.buckets 64, and this job has 640: "), why);
    }

    @Test
    void aSnapshotThatIsTooOldIsRefusedForGood() throws Exception {
        OperatorSubtaskState snapshot = snapshotOf(new SnapshotGuard(PINS, HOUR_MS, HOUR_MS));
        String why = refusal(snapshot, new SnapshotGuard(PINS, -1, HOUR_MS));
        assertTrue(why.startsWith("The snapshot is 0 hours old, and privacy.snapshots_kept_ms allows"), why);
    }

    @Test
    void aRestoreAfterTheTransactionsOfTheSinksIsCounted() throws Exception {
        SnapshotGuard guard = new SnapshotGuard(PINS, HOUR_MS, HOUR_MS);
        restore(snapshotOf(new SnapshotGuard(PINS, HOUR_MS, -HOUR_MS)), guard);
        assertEquals(1, guard.restoresPastTransactions.getCount());
    }

    @Test
    void transactionsBeginAtTheLastCheckpointThatHasCompleted() throws Exception {
        SnapshotGuard guard = new SnapshotGuard(PINS, HOUR_MS, HOUR_MS);
        try (var harness = harnessOf(guard)) {
            harness.open();
            long openedMs = guard.transactionsBeganMs;
            guard.transactionsBeganMs = openedMs - HOUR_MS;
            harness.snapshot(1, 0);
            assertEquals(openedMs - HOUR_MS, guard.transactionsBeganMs, "the checkpoint has not completed");
            harness.notifyOfCompletedCheckpoint(1);
            assertTrue(guard.transactionsBeganMs >= openedMs);
            harness.notifyOfCompletedCheckpoint(2);
            assertTrue(guard.transactionsBeganMs >= openedMs, "a checkpoint of a subtask that ran before this one");
        }
    }

    private static OperatorSubtaskState snapshotOf(SnapshotGuard guard) throws Exception {
        try (var harness = harnessOf(guard)) {
            harness.open();
            return harness.snapshot(1, 0);
        }
    }

    private static void restore(OperatorSubtaskState snapshot, SnapshotGuard guard) throws Exception {
        try (var harness = harnessOf(guard)) {
            harness.initializeState(snapshot);
        }
    }

    private static String refusal(OperatorSubtaskState snapshot, SnapshotGuard guard) {
        return assertThrows(SuppressRestartsException.class, () -> restore(snapshot, guard)).getCause().getMessage();
    }

    private static OneInputStreamOperatorTestHarness<byte[], byte[]> harnessOf(SnapshotGuard guard) throws Exception {
        return new OneInputStreamOperatorTestHarness<>(guard);
    }
}
