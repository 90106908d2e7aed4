package freshet;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.ByteBuffer;

import org.apache.flink.api.common.operators.ProcessingTimeService.ProcessingTimeCallback;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.table.data.RowData;

/**
 * Packs the records of the raw topics into batches, so that Python is entered once for many of them.
 *
 * A batch ends when it is full, or so many milliseconds after its first record, or before a checkpoint's barrier:
 * nothing is held across a checkpoint, so there is no state. While the operators behind are busy, batches grow,
 * because large ones cost less: each is gathered for a share of the time that the one before took to be handed on, so
 * that a single pause makes nobody wait longer. What comes out is MessagePack: an array of records, each
 * an array of topic, partition, offset, append time (ms), key and value, as udfs/ingest.py reads them.
 */
public class RecordBatches extends AbstractStreamOperator<byte[]>
        implements OneInputStreamOperator<RowData, byte[]>, BoundedOneInput, ProcessingTimeCallback {

    private static final long serialVersionUID = 1L;
    private static final int HEAD_BYTES = 5;
    private static final int BUSY_SHARE = 4;
    private static final int BUSY_WAITS_MAX = 10;

    private final int recordsMax;
    private final int bytesMax;
    private final long waitMs;
    private transient ByteArrayOutputStream bytes;
    private transient DataOutputStream out;
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
        out = new DataOutputStream(bytes);
    }

    @Override
    public void processElement(StreamRecord<RowData> element) throws IOException {
        RowData row = element.getValue();
        out.writeByte(0x96);
        text(row.getString(0).toBytes());
        out.writeByte(0xd2);
        out.writeInt(row.getInt(1));
        out.writeByte(0xd3);
        out.writeLong(row.getLong(2));
        out.writeByte(0xd3);
        out.writeLong(row.getTimestamp(3, 3).getMillisecond());
        binary(row, 4);
        binary(row, 5);
        records++;
        if (records >= recordsMax || bytes.size() >= bytesMax) {
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
        ByteBuffer batch = ByteBuffer.allocate(HEAD_BYTES + bytes.size());
        batch.put((byte) 0xdd).putInt(records).put(bytes.toByteArray());
        records = 0;
        bytes.reset();
        long begunMs = nowMs();
        output.collect(new StreamRecord<>(batch.array()));
        handedOnMs = nowMs() - begunMs;
    }

    private long nowMs() {
        return getProcessingTimeService().getCurrentProcessingTime();
    }

    private void text(byte[] utf8) throws IOException {
        out.writeByte(0xda);
        out.writeShort(utf8.length);
        out.write(utf8);
    }

    private void binary(RowData row, int column) throws IOException {
        if (row.isNullAt(column)) {
            out.writeByte(0xc0);
            return;
        }
        byte[] value = row.getBinary(column);
        out.writeByte(0xc6);
        out.writeInt(value.length);
        out.write(value);
    }
}
