package freshet;

import java.io.IOException;
import java.util.concurrent.ThreadLocalRandom;

import org.apache.flink.api.common.JobID;
import org.apache.flink.configuration.CheckpointingOptions;
import org.apache.flink.configuration.ReadableConfig;
import org.apache.flink.core.fs.FSDataOutputStream;
import org.apache.flink.core.fs.FileSystem;
import org.apache.flink.core.fs.Path;
import org.apache.flink.runtime.state.CheckpointStorage;
import org.apache.flink.runtime.state.CheckpointStorageAccess;
import org.apache.flink.runtime.state.CheckpointStorageFactory;
import org.apache.flink.runtime.state.CheckpointStorageLocation;
import org.apache.flink.runtime.state.CompletedCheckpointStorageLocation;
import org.apache.flink.runtime.state.filesystem.FsCheckpointStorageAccess;
import org.apache.flink.runtime.state.filesystem.FsCheckpointStorageLocation;
import org.apache.flink.runtime.state.storage.FileSystemCheckpointStorage;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Flink's checkpoint storage on a file system; after a failed checkpoint, the JobManager writes a file there before it
 * begins the next one.
 *
 * The tasks take part in a checkpoint before they find that they cannot store it, and each time the exactly-once sinks
 * begin new transactions, with a producer for each, which stay until a checkpoint completes. An hour without storage
 * would leave thousands of them. A checkpoint that fails here fails before the tasks hear of it.
 */
public class ProbedCheckpointStorage implements CheckpointStorage {

    private static final long serialVersionUID = 1L;
    private static final Logger LOG = LoggerFactory.getLogger(ProbedCheckpointStorage.class);
    /** A disk that is nearly full has no room for a checkpoint, but has for a few bytes. */
    static final int PROBE_BYTES = 1 << 20;

    private final FileSystemCheckpointStorage storage;
    private final boolean withSubdirectories;

    ProbedCheckpointStorage(FileSystemCheckpointStorage storage, boolean withSubdirectories) {
        this.storage = storage;
        this.withSubdirectories = withSubdirectories;
    }

    @Override
    public CompletedCheckpointStorageLocation resolveCheckpoint(String pointer) throws IOException {
        return storage.resolveCheckpoint(pointer);
    }

    @Override
    public CheckpointStorageAccess createCheckpointStorage(JobID job) throws IOException {
        return new ProbedAccess(storage, withSubdirectories, job);
    }

    /** The value of `execution.checkpointing.storage`: the other settings are those of Flink's own `filesystem`. */
    public static class Factory implements CheckpointStorageFactory<ProbedCheckpointStorage> {

        @Override
        public ProbedCheckpointStorage createFromConfig(ReadableConfig config, ClassLoader loader) {
            return new ProbedCheckpointStorage(FileSystemCheckpointStorage.createFromConfig(config, loader),
                    config.get(CheckpointingOptions.CREATE_CHECKPOINT_SUB_DIR));
        }
    }

    private static class ProbedAccess extends FsCheckpointStorageAccess {

        private volatile boolean lastOneFailed;

        ProbedAccess(FileSystemCheckpointStorage storage, boolean withSubdirectories, JobID job) throws IOException {
            super(storage.getCheckpointPath(), storage.getSavepointPath(), withSubdirectories, job,
                    storage.getMinFileSizeThreshold(), storage.getWriteBufferSize());
        }

        @Override
        public CheckpointStorageLocation initializeLocationForCheckpoint(long checkpoint) throws IOException {
            if (lastOneFailed) {
                probe();
            }
            lastOneFailed = true;
            FsCheckpointStorageLocation made =
                    (FsCheckpointStorageLocation) super.initializeLocationForCheckpoint(checkpoint);
            lastOneFailed = false;
            return new ProbedLocation(made);
        }

        private void probe() throws IOException {
            Path file = new Path(checkpointsDirectory, "probe");
            byte[] content = new byte[PROBE_BYTES];
            ThreadLocalRandom.current().nextBytes(content);
            try (FSDataOutputStream out = fileSystem.create(file, FileSystem.WriteMode.OVERWRITE)) {
                out.write(content);
            } finally {
                forget(file);
            }
        }

        /** A file that cannot be deleted is no reason to go without checkpoints: the next probe replaces it. */
        private void forget(Path file) {
            try {
                fileSystem.delete(file, false);
            } catch (IOException kept) {
                LOG.warn("{} cannot be deleted", file, kept);
            }
        }

        private class ProbedLocation extends FsCheckpointStorageLocation {

            ProbedLocation(FsCheckpointStorageLocation made) {
                super(ProbedAccess.this.fileSystem, made.getCheckpointDirectory(), made.getSharedStateDirectory(),
                        made.getTaskOwnedStateDirectory(), made.getLocationReference(), fileSizeThreshold,
                        writeBufferSize);
            }

            @Override
            public void disposeOnFailure() throws IOException {
                lastOneFailed = true;
                super.disposeOnFailure();
            }
        }
    }
}
