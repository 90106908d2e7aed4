package freshet;

import java.io.ByteArrayOutputStream;
import java.io.DataOutputStream;
import java.io.IOException;
import java.nio.charset.StandardCharsets;

import org.apache.flink.api.common.typeinfo.PrimitiveArrayTypeInfo;
import org.apache.flink.api.common.typeinfo.TypeInformation;
import org.apache.flink.connector.kafka.source.reader.deserializer.KafkaRecordDeserializationSchema;
import org.apache.flink.kafka.shaded.org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.flink.kafka.shaded.org.apache.kafka.common.header.Header;
import org.apache.flink.util.Collector;

/**
 * Packs each record of the raw topics, as it is, for {@link RecordBatches}: as MessagePack, an array of topic, partition,
 * offset, append time (ms), key and value, and only of a record that has one of these headers: `x-request-id` and
 * `traceparent`, each nil if it is missing or longer than such a header is. Nothing in a record can make it fail.
 */
public class PackedRecord implements KafkaRecordDeserializationSchema<byte[]> {

    private static final long serialVersionUID = 1L;
    private static final int NUMBERS_BYTES = 64;
    private static final int REQUEST_BYTES_MAX = 128;
    private static final int TRACE_BYTES_MAX = 64;

    @Override
    public void deserialize(ConsumerRecord<byte[], byte[]> record, Collector<byte[]> out) throws IOException {
        byte[] topic = record.topic().getBytes(StandardCharsets.UTF_8);
        byte[] request = header(record, "x-request-id", REQUEST_BYTES_MAX);
        byte[] trace = header(record, "traceparent", TRACE_BYTES_MAX);
        boolean told = request != null || trace != null;
        int size = NUMBERS_BYTES + topic.length + length(record.key()) + length(record.value())
                + length(request) + length(trace);
        ByteArrayOutputStream bytes = new ByteArrayOutputStream(size);
        DataOutputStream packed = new DataOutputStream(bytes);
        packed.writeByte(told ? 0x98 : 0x96);
        packed.writeByte(0xda);
        packed.writeShort(topic.length);
        packed.write(topic);
        packed.writeByte(0xd2);
        packed.writeInt(record.partition());
        packed.writeByte(0xd3);
        packed.writeLong(record.offset());
        packed.writeByte(0xd3);
        packed.writeLong(record.timestamp());
        binary(packed, record.key());
        binary(packed, record.value());
        if (told) {
            binary(packed, request);
            binary(packed, trace);
        }
        out.collect(bytes.toByteArray());
    }

    @Override
    public TypeInformation<byte[]> getProducedType() {
        return PrimitiveArrayTypeInfo.BYTE_PRIMITIVE_ARRAY_TYPE_INFO;
    }

    private static byte[] header(ConsumerRecord<byte[], byte[]> record, String name, int bytesMax) {
        Header found = record.headers().lastHeader(name);
        return found == null || length(found.value()) > bytesMax ? null : found.value();
    }

    private static int length(byte[] raw) {
        return raw == null ? 0 : raw.length;
    }

    private static void binary(DataOutputStream packed, byte[] raw) throws IOException {
        if (raw == null) {
            packed.writeByte(0xc0);
            return;
        }
        packed.writeByte(0xc6);
        packed.writeInt(raw.length);
        packed.write(raw);
    }
}
