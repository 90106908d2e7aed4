package freshet;

import static org.junit.jupiter.api.Assertions.assertEquals;
import static org.junit.jupiter.api.Assertions.assertFalse;
import static org.junit.jupiter.api.Assertions.assertThrows;
import static org.junit.jupiter.api.Assertions.assertTrue;

import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.stream.Collectors;

import org.apache.flink.api.common.JobID;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.runtime.state.CheckpointStorageAccess;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class ProbedCheckpointStorageTest {

    private static final JobID JOB = new JobID(0, 7);

    @TempDir
    Path folder;

    @Test
    void aCheckpointBeginsAfterAFailedOneOnlyIfTheStorageTakesFiles() throws Exception {
        CheckpointStorageAccess storage = opened();
        storage.initializeLocationForCheckpoint(1).disposeOnFailure();
        Path inTheWay = Files.createDirectories(ofJob().resolve("probe/in the way"));
        assertThrows(IOException.class, () -> storage.initializeLocationForCheckpoint(2));
        assertThrows(IOException.class, () -> storage.initializeLocationForCheckpoint(3));
        assertEquals(List.of("probe", "shared", "taskowned"), content());

        Files.delete(inTheWay);
        Files.delete(inTheWay.getParent());
        storage.initializeLocationForCheckpoint(4);
        assertTrue(content().contains("chk-4"));
        assertFalse(content().contains("probe"));
    }

    @Test
    void nothingIsWrittenWhileCheckpointsComplete() throws Exception {
        CheckpointStorageAccess storage = opened();
        storage.initializeLocationForCheckpoint(1);
        Files.createDirectories(ofJob().resolve("probe/in the way"));
        storage.initializeLocationForCheckpoint(2);
        assertTrue(content().contains("chk-2"));
    }

    private CheckpointStorageAccess opened() throws IOException {
        Configuration config = new Configuration();
        config.set(CheckpointingOptions.CHECKPOINTS_DIRECTORY, folder.toUri().toString());
        var storage = new ProbedCheckpointStorage.Factory().createFromConfig(config, getClass().getClassLoader());
        CheckpointStorageAccess access = storage.createCheckpointStorage(JOB);
        access.initializeBaseLocationsForCheckpoint();
        return access;
    }

    private Path ofJob() {
        return folder.resolve(JOB.toString());
    }

    private List<String> content() throws IOException {
        try (var files = Files.list(ofJob())) {
            return files.map(file -> file.getFileName().toString()).sorted().collect(Collectors.toList());
        }
    }
}
