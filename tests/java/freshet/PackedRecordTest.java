package freshet;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.ArrayList;
import java.util.HexFormat;
import java.util.List;
import java.util.Optional;

import org.apache.flink.api.common.functions.util.ListCollector;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.internals.RecordHeaders;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.record.TimestampType;
import org.junit.jupiter.api.Test;

class PackedRecordTest {

    @Test
    void aRecordKeepsItsPlaceItsTimeItsKeyAndItsValue() throws Exception {
        assertEquals(
                "96" + "da000174" + "d200000003" + "d30000000000000102" + "d3ffffffffffffffff" + "c6000000016b"
                        + "c600000002c3a9",
                packed("t", 3, 258, -1, "k".getBytes(UTF_8), "é".getBytes(UTF_8)));
    }

    @Test
    void anAbsentKeyOrValueIsNoEmptyOne() throws Exception {
        assertEquals("c0" + "c600000000", end(packed("t", 0, 0, 0, null, new byte[0]), 6));
        assertEquals("c600000000" + "c0", end(packed("t", 0, 0, 0, new byte[0], null), 6));
    }

    @Test
    void aRecordWithARequestOrATraceHasBothAtItsEnd() throws Exception {
        RecordHeaders request = new RecordHeaders();
        request.add("x-request-id", "r".getBytes(UTF_8)).add("other", "o".getBytes(UTF_8));
        assertEquals("98", packed("t", 0, 0, 0, null, null, request).substring(0, 2));
        assertEquals("c0" + "c0" + "c60000000172" + "c0", end(packed("t", 0, 0, 0, null, null, request), 9));
        RecordHeaders trace = new RecordHeaders();
        trace.add("traceparent", "t".getBytes(UTF_8));
        assertEquals("c0" + "c0" + "c0" + "c60000000174", end(packed("t", 0, 0, 0, null, null, trace), 9));
    }

    @Test
    void headersThatAreTooLongOrNullAreNone() throws Exception {
        RecordHeaders headers = new RecordHeaders();
        headers.add("x-request-id", new byte[129]).add("traceparent", null);
        assertEquals(packed("t", 0, 0, 0, null, null), packed("t", 0, 0, 0, null, null, headers));
    }

    private static String packed(String topic, int partition, long offset, long ms, byte[] key, byte[] value)
            throws Exception {
        return packed(topic, partition, offset, ms, key, value, new RecordHeaders());
    }

    private static String packed(
            String topic, int partition, long offset, long ms, byte[] key, byte[] value, RecordHeaders headers)
            throws Exception {
        List<byte[]> out = new ArrayList<>();
        new PackedRecord().deserialize(
                new ConsumerRecord<>(topic, partition, offset, ms, TimestampType.LOG_APPEND_TIME, 0, 0, key, value,
                        headers, Optional.empty()),
                new ListCollector<>(out));
        return HexFormat.of().formatHex(out.get(0));
    }

    private static String end(String hex, int bytes) {
        return hex.substring(hex.length() - 2 * bytes);
    }
}
