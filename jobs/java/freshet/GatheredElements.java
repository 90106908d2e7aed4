package freshet;

import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;

import org.apache.flink.api.common.operators.MailboxExecutor;
import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.BoundedOneInput;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.types.Row;

/**
 * Hands on, as one, all elements that have reached a subtask: an element of ten buckets costs little more than one of
 * one bucket, with one run of the model and one round trip to Redis.
 *
 * Takes (key, (key, packed element)) as key_by makes them, and emits the same with a packed array of (key, element)
 * under the first one's key; udfs/elements.py reads it. An element waits only while more are at hand: the operator
 * looks again after each, and hands on what it has once nothing new has come, or it is full. So elements grow while the
 * next operator is busy, and with the number of buckets. Nothing is held across a checkpoint's barrier, so there is no
 * state.
 */
public class GatheredElements extends AbstractStreamOperator<Row>
        implements OneInputStreamOperator<Row, Row>, BoundedOneInput {

    private static final long serialVersionUID = 1L;
    private static final byte ARRAY = (byte) 0xdd;
    private static final byte PAIR = (byte) 0x92;
    private static final byte INTEGER = (byte) 0xd2;

    private final int bytesMax;
    private transient MailboxExecutor mailbox;
    private transient ByteArrayOutputStream bytes;
    private transient Object firstKey;
    private transient int elements;
    private transient int seen;
    private transient boolean looking;

    public GatheredElements(int bytesMax) {
        this.bytesMax = bytesMax;
    }

    @Override
    public void open() throws Exception {
        super.open();
        mailbox = getContainingTask().getMailboxExecutorFactory().createExecutor(getOperatorConfig().getChainIndex());
        bytes = new ByteArrayOutputStream(1 << 16);
    }

    @Override
    public void processElement(StreamRecord<Row> record) {
        Object key = record.getValue().getField(0);
        byte[] element = (byte[]) ((Row) record.getValue().getField(1)).getField(1);
        if (elements > 0 && bytes.size() + element.length > bytesMax) {
            emit();
        }
        if (elements == 0) {
            firstKey = key;
            bytes.write(ARRAY);
            writeInteger(0);
        }
        bytes.write(PAIR);
        bytes.write(INTEGER);
        writeInteger((Integer) key);
        bytes.write(element, 0, element.length);
        elements++;
        if (bytes.size() >= bytesMax) {
            emit();
        } else {
            lookAgain();
        }
    }

    private void writeInteger(int number) {
        bytes.write(number >>> 24);
        bytes.write(number >>> 16);
        bytes.write(number >>> 8);
        bytes.write(number);
    }

    /** Once the task has nothing else to do than to read its input: it reads one element between two looks. */
    private void lookAgain() {
        if (!looking) {
            looking = true;
            mailbox.execute(this::look, "gather elements");
        }
    }

    private void look() {
        looking = false;
        if (elements > seen) {
            seen = elements;
            lookAgain();
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
        seen = 0;
        if (elements == 0) {
            return;
        }
        byte[] gathered = bytes.toByteArray();
        ByteBuffer.wrap(gathered).putInt(1, elements);
        elements = 0;
        bytes.reset();
        output.collect(new StreamRecord<>(Row.of(firstKey, Row.of(firstKey, gathered))));
    }
}
