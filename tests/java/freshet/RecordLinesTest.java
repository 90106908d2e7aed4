package freshet;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.List;

import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;

class RecordLinesTest {

    @ParameterizedTest(name = "\"{0}\"")
    @CsvSource({"one, one", "'two\nthree', two|three", "'4 🫖\n\nf', 4 🫖||f", "'end\n', end", "'\n', ''"})
    void aRecordForEachLine(String record, String lines) throws Exception {
        assertEquals(List.of(lines.split("\\|", -1)), linesOf(record));
    }

    @ParameterizedTest(name = "\"{0}\"")
    @CsvSource("''")
    void anEmptyRecordHasNoLines(String record) throws Exception {
        assertEquals(List.of(), linesOf(record));
    }

    private static List<String> linesOf(String record) throws Exception {
        try (var harness = new OneInputStreamOperatorTestHarness<byte[], byte[]>(new RecordLines())) {
            harness.open();
            harness.processElement(new StreamRecord<>(record.getBytes(UTF_8)));
            return harness.extractOutputValues().stream().map(line -> new String(line, UTF_8)).toList();
        }
    }
}
