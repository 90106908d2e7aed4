package freshet;

import static java.nio.charset.StandardCharsets.UTF_8;
import static org.junit.jupiter.api.Assertions.assertEquals;

import java.util.HexFormat;
import java.util.List;
import java.util.Optional;

import org.apache.flink.streaming.runtime.streamrecord.StreamRecord;
import org.apache.flink.streaming.runtime.tasks.mailbox.Mail;
import org.apache.flink.streaming.util.OneInputStreamOperatorTestHarness;
import org.apache.flink.types.Row;
import org.junit.jupiter.api.AfterEach;
import org.junit.jupiter.api.Test;

class GatheredElementsTest {

    private static final int LARGE = 1_000_000;

    private OneInputStreamOperatorTestHarness<Row, Row> harness;

    @AfterEach
    void close() throws Exception {
        harness.close();
    }

    @Test
    void whatIsGatheredIsAnArrayOfPairsUnderTheFirstKey() throws Exception {
        start(LARGE);
        receive(7, "a");
        receive(-2, "bc");
        lookUntilIdle();
        Row only = harness.extractOutputValues().get(0);
        assertEquals(7, only.getField(0));
        assertEquals(7, ((Row) only.getField(1)).getField(0));
        assertEquals(
                "dd00000002" + "92d200000007" + "61" + "92d2fffffffe" + "6263",
                HexFormat.of().formatHex((byte[]) ((Row) only.getField(1)).getField(1)));
    }

    @Test
    void anElementIsHandedOnOnceNothingNewHasCome() throws Exception {
        start(LARGE);
        receive(1, "a");
        look();
        assertEquals(List.of(), sizes(), "there may be more in the same buffer");
        receive(2, "b");
        look();
        assertEquals(List.of(), sizes());
        look();
        assertEquals(List.of(2), sizes());
        lookUntilIdle();
        assertEquals(List.of(2), sizes());
    }

    @Test
    void anElementThatComesAloneIsNotHeld() throws Exception {
        start(LARGE);
        for (int element = 1; element <= 3; element++) {
            receive(1, "a");
            lookUntilIdle();
        }
        assertEquals(List.of(1, 1, 1), sizes());
    }

    @Test
    void elementsAreHandedOnWhenTheyAreFull() throws Exception {
        start(25);
        for (int element = 0; element < 5; element++) {
            receive(1, "four");
        }
        assertEquals(List.of(2, 2), sizes());
        lookUntilIdle();
        assertEquals(List.of(2, 2, 1), sizes());
    }

    @Test
    void oneThatIsLargerThanAllThatIsGatheredGoesAlone() throws Exception {
        start(30);
        receive(1, "a");
        receive(2, "x".repeat(100));
        receive(3, "b");
        lookUntilIdle();
        assertEquals(List.of(1, 1, 1), sizes());
    }

    @Test
    void nothingIsHeldAcrossACheckpoint() throws Exception {
        start(LARGE);
        receive(1, "a");
        harness.prepareSnapshotPreBarrier(1);
        assertEquals(List.of(1), sizes());
        lookUntilIdle();
        assertEquals(List.of(1), sizes());
    }

    @Test
    void nothingIsHeldAtTheEndOfTheInput() throws Exception {
        start(LARGE);
        receive(1, "a");
        harness.endInput();
        assertEquals(List.of(1), sizes());
    }

    private void start(int bytesMax) throws Exception {
        harness = new OneInputStreamOperatorTestHarness<>(new GatheredElements(bytesMax));
        harness.open();
    }

    private void receive(int key, String element) throws Exception {
        harness.processElement(new StreamRecord<>(Row.of(key, Row.of(key, element.getBytes(UTF_8)))));
    }

    /** What the task does between two elements: it runs the mails that it finds. */
    private void look() throws Exception {
        Optional<Mail> mail = harness.getTaskMailbox().tryTake(0);
        if (mail.isPresent()) {
            mail.get().run();
        }
    }

    private void lookUntilIdle() throws Exception {
        while (harness.getTaskMailbox().hasMail()) {
            look();
        }
    }

    private List<Integer> sizes() {
        return harness.extractOutputValues().stream()
                .map(row -> (byte[]) ((Row) row.getField(1)).getField(1))
                .map(gathered -> (int) gathered[4])
                .toList();
    }
}
