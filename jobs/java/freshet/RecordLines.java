package freshet;

import java.util.Arrays;

import org.apache.flink.streaming.api.operators.AbstractStreamOperator;
import org.apache.flink.streaming.api.operators.OneInputStreamOperator;
import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;

/**
 * Splits records at line feeds: what Python tells of many things in one record becomes a record each.
 *
 * A line feed at the end begins no further line, and an empty record has no lines.
 */
public class RecordLines extends AbstractStreamOperator<byte[]> implements OneInputStreamOperator<byte[], byte[]> {

    private static final long serialVersionUID = 1L;

    @Override
    public void processElement(StreamRecord<byte[]> element) {
        byte[] lines = element.getValue();
        int begin = 0;
        for (int at = 0; at < lines.length; at++) {
            if (lines[at] == '\n') {
                output.collect(new StreamRecord<>(Arrays.copyOfRange(lines, begin, at)));
                begin = at + 1;
            }
        }
        if (begin < lines.length) {
            output.collect(new StreamRecord<>(Arrays.copyOfRange(lines, begin, lines.length)));
        }
    }
}
