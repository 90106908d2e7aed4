package freshet;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;

import org.apache.flink.api.common.operators.ProcessingTimeService.ProcessingTimeCallback;
import org.apache.flink.runtime.io.network.api.writer.ResultPartitionWriter;
import org.apache.flink.runtime.io.network.partition.ResultPartition;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Packs the records of the raw topics into batches, so that Python is entered once for many of them.
 *
 * A batch ends when it is full, or so many milliseconds after its first record, or before a checkpoint's barrier:
 * nothing is held across a checkpoint, so there is no state. While the operators behind are busy, batches grow,
 * because large ones cost less: a batch is held while the next task has not taken all that was sent to it, and is
 * gathered for a share of the time that the one before took to be handed on, so that a single pause makes nobody wait
 * longer. What comes out is MessagePack: an array of records as {@link PackedRecord} packs them and udfs/ingest.py
 * reads them.
 */
public class RecordBatches extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<byte[], byte[]>, BoundedOneInput, ProcessingTimeCallback {

    private static final long serialVersionUID = 1L;
    private static final byte[] ARRAY = {(byte) 0xdd, 0, 0, 0, 0};
    private static final int BUSY_SHARE = 4;
    private static final long LOOK_AGAIN_MS = 2;
    private static final long HELD_MAX_MS = 200;

    private final int recordsMax;
    private final int bytesMax;
    private final long waitMs;
    private transient ByteArrayOutputStream bytes;
    private transient int records;
    private transient long begunMs;
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
            begunMs = nowMs();
        }
        bytes.write(element.getValue(), 0, element.getValue().length);
        records++;
        if (records >= recordsMax || bytes.size() >= bytesMax + ARRAY.length) {
            emit();
        } else if (!timed) {
            lookIn(Math.max(waitMs, Math.min(handedOnMs / BUSY_SHARE, HELD_MAX_MS)));
        }
    }

    private void lookIn(long ms) {
        timed = true;
        getProcessingTimeService().registerTimer(nowMs() + ms, this);
    }

    @Override
    public void onProcessingTime(long time) {
        timed = false;
        if (records > 0 && nowMs() - begunMs < HELD_MAX_MS && unreadBytes() > 0) {
            lookIn(LOOK_AGAIN_MS);
        } else {
            emit();
        }
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

    /** What was sent to the next tasks and not taken by them. A task that is busy takes no more than it works on. */
    protected long unreadBytes() {
        long unread = 0;
        for (ResultPartitionWriter writer : getContainingTask().getEnvironment().getAllWriters()) {
            if (writer instanceof ResultPartition) {
                unread += ((ResultPartition) writer).getSizeOfQueuedBuffersUnsafe();
            }
        }
        return unread;
    }

    private long nowMs() {
        return getProcessingTimeService().getCurrentProcessingTime();
    }
}
