package freshet;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;

import org.apache.flink.api.common.operators.ProcessingTimeService.ProcessingTimeCallback;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Packs the records of the raw topics into batches, so that Python is entered once for many of them.
 *
 * A batch ends when it is full, or so many milliseconds after its first record, or before a checkpoint's barrier:
 * nothing is held across a checkpoint, so there is no state. While the operators behind are busy, batches grow,
 * because large ones cost less: each is gathered for a share of the time that the one before took to be handed on, so
 * that a single pause makes nobody wait longer. What comes out is MessagePack: an array of records as
 * {@link PackedRecord} packs them and udfs/ingest.py reads them.
 */
public class RecordBatches extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]>, BoundedOneInput, ProcessingTimeCallback {

    private static final long serialVersionUID = 1L;
    private static final byte[] ARRAY = {(byte) 0xdd, 0, 0, 0, 0};
    private static final int BUSY_SHARE = 4;
    private static final int BUSY_WAITS_MAX = 10;

    private final int recordsMax;
    private final int bytesMax;
    private final long waitMs;
    private transient ByteArrayOutputStream bytes;
    private transient int records;
    private transient long handedOnMs;
    private transient boolean timed;

    public RecordBatches(int recordsMax, int bytesMax, long waitMs) {
        this.recordsMax = recordsMax;
        this.bytesMax = bytesMax;
        this.waitMs = waitMs;
    }

    @Override
    public void open() throws Exception {
        super.open();
        bytes = new ByteArrayOutputStream(1 << 16);
    }

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        if (records == 0) {
            bytes.write(ARRAY, 0, ARRAY.length);
        }
        bytes.write(element.getValue(), 0, element.getValue().length);
        records++;
        if (records >= recordsMax || bytes.size() >= bytesMax + ARRAY.length) {
            emit();
        } else if (!timed) {
            timed = true;
            long gatherMs = Math.min(Math.max(waitMs, handedOnMs / BUSY_SHARE), BUSY_WAITS_MAX * waitMs);
            getProcessingTimeService().registerTimer(nowMs() + gatherMs, this);
        }
    }

    @Override
    public void onProcessingTime(long time) {
        timed = false;
        emit();
    }

    @Override
    public void prepareSnapshotPreBarrier(long checkpoint) {
        emit();
    }

    @Override
    public void endInput() {
        emit();
    }

    private void emit() {
        if (records == 0) {
            return;
        }
        byte[] batch = bytes.toByteArray();
        ByteBuffer.wrap(batch).putInt(1, records);
        records = 0;
        bytes.reset();
        long begunMs = nowMs();
        output.collect(new StreamRecord<>(batch));
        handedOnMs = nowMs() - begunMs;
    }

    private long nowMs() {
        return getProcessingTimeService().getCurrentProcessingTime();
    }
}
