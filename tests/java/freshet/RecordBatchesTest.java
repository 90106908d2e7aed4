package freshet;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.lang.reflect.Proxy;
import java.nio.ByteBuffer;
import java.util.HexFormat;
import java.util.List;

import org.apache.flink.streaming.api.operators.Output;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class RecordBatchesTest {

    private static final int WAIT_MS = 20;
    private static final int LARGE = 1_000_000;

    private OneInputStreamOperatorTestHarness<byte[], byte[]> harness;
    private long handOnMs = 0;
    private long unread = 0;

    @AfterEach
    void close() throws Exception {
        harness.close();
    }

    @Test
    void aBatchIsAnArrayOfItsRecords() throws Exception {
        start(2, LARGE);
        receive(bytes("first"));
        receive(bytes("é"));
        assertEquals(
                List.of("dd00000002" + "6669727374" + "c3a9"),
                harness.extractOutputValues().stream().map(HexFormat.of()::formatHex).toList());
    }

    @Test
    void aBatchEndsWhenItHoldsSoManyRecords() throws Exception {
        start(2, LARGE);
        receive(5);
        assertEquals(List.of(2, 2), batchSizes());
    }

    @Test
    void aBatchEndsWhenItHoldsSoManyBytes() throws Exception {
        start(LARGE, 100);
        receive(5);
        assertEquals(List.of(3), batchSizes());
    }

    @Test
    void aBatchEndsSoManyMillisecondsAfterItsFirstRecord() throws Exception {
        start(LARGE, LARGE);
        receive(1);
        harness.setProcessingTime(WAIT_MS - 1);
        receive(1);
        assertEquals(List.of(), batchSizes());
        harness.setProcessingTime(WAIT_MS);
        assertEquals(List.of(2), batchSizes());
        harness.setProcessingTime(10 * WAIT_MS);
        assertEquals(List.of(2), batchSizes(), "a batch without records");
    }

    @Test
    void nothingIsHeldAcrossACheckpoint() throws Exception {
        start(LARGE, LARGE);
        receive(3);
        harness.prepareSnapshotPreBarrier(1);
        assertEquals(List.of(3), batchSizes());
    }

    @Test
    void nothingIsHeldAtTheEndOfTheInput() throws Exception {
        start(LARGE, LARGE);
        receive(3);
        harness.endInput();
        assertEquals(List.of(3), batchSizes());
    }

    @Test
    void aBatchIsGatheredForAShareOfTheTimeThatTheOneBeforeTook() throws Exception {
        start(LARGE, LARGE);
        long gatheredMs = gatheredMsAfterABatchThatTook(8 * WAIT_MS);
        assertEquals(2 * WAIT_MS, gatheredMs);
    }

    @Test
    void aLongPauseMakesTheNextBatchWaitNoLongerThanAFifthOfASecond() throws Exception {
        start(LARGE, LARGE);
        long gatheredMs = gatheredMsAfterABatchThatTook(1000 * WAIT_MS);
        assertEquals(200, gatheredMs);
    }

    @Test
    void aBatchIsHeldUntilTheNextTaskHasTakenWhatWasSentToIt() throws Exception {
        start(LARGE, LARGE);
        unread = 1;
        receive(1);
        harness.setProcessingTime(WAIT_MS);
        receive(1);
        harness.setProcessingTime(WAIT_MS + 10);
        assertEquals(List.of(), batchSizes());
        unread = 0;
        harness.setProcessingTime(WAIT_MS + 12);
        assertEquals(List.of(2), batchSizes());
    }

    @Test
    void aBatchIsHeldForAFifthOfASecondAtMost() throws Exception {
        start(LARGE, LARGE);
        unread = 1;
        receive(1);
        harness.setProcessingTime(199);
        assertEquals(List.of(), batchSizes());
        harness.setProcessingTime(202);
        assertEquals(List.of(1), batchSizes());
    }

    @Test
    void noBatchIsHeldAcrossACheckpointOfABusyTask() throws Exception {
        start(LARGE, LARGE);
        unread = 1;
        receive(1);
        harness.setProcessingTime(WAIT_MS);
        harness.prepareSnapshotPreBarrier(1);
        assertEquals(List.of(1), batchSizes());
    }

    private long gatheredMsAfterABatchThatTook(long ms) throws Exception {
        handOnMs = ms;
        receive(1);
        harness.prepareSnapshotPreBarrier(1);
        handOnMs = 0;
        harness.setProcessingTime(harness.getProcessingTime() + WAIT_MS);
        long begunMs = harness.getProcessingTime();
        receive(1);
        while (batchSizes().size() < 2) {
            harness.setProcessingTime(harness.getProcessingTime() + 1);
        }
        return harness.getProcessingTime() - begunMs;
    }

    private void start(int recordsMax, int bytesMax) throws Exception {
        harness = new OneInputStreamOperatorTestHarness<>(new SlowlyHandedOn(recordsMax, bytesMax));
        harness.setProcessingTime(0);
        harness.open();
    }

    private void receive(int count) throws Exception {
        for (int record = 0; record < count; record++) {
            receive(new byte[40]);
        }
    }

    private void receive(byte[] record) throws Exception {
        harness.processElement(new StreamRecord<>(record));
    }

    private List<Integer> batchSizes() {
        return harness.extractOutputValues().stream().map(batch -> ByteBuffer.wrap(batch).getInt(1)).toList();
    }

    private static byte[] bytes(String text) {
        return text.getBytes(UTF_8);
    }

    /** Operators behind it take `handOnMs` for a batch, and the next task has not taken `unread` bytes. */
    private class SlowlyHandedOn extends RecordBatches {

        private static final long serialVersionUID = 1L;

        SlowlyHandedOn(int recordsMax, int bytesMax) {
            super(recordsMax, bytesMax, WAIT_MS);
        }

        @Override
        protected long unreadBytes() {
            return unread;
        }

        @Override
        @SuppressWarnings("unchecked")
        public void open() throws Exception {
            super.open();
            Output<StreamRecord<byte[]>> quick = output;
            output = (Output<StreamRecord<byte[]>>) Proxy.newProxyInstance(
                    Output.class.getClassLoader(), new Class<?>[] {Output.class}, (proxy, method, arguments) -> {
                        if (method.getName().equals("collect") && handOnMs > 0) {
                            harness.setProcessingTime(harness.getProcessingTime() + handOnMs);
                        }
                        return method.invoke(quick, arguments);
                    });
        }
    }
}
