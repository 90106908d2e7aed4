package org.apache.flink.state.rocksdb; // its builder of backends is not public

import com.sun.management.OperatingSystemMXBean;
import java.io.File;
import java.lang.management.ManagementFactory;
import java.util.Collections;
import java.util.List;
import java.util.Random;
import java.util.concurrent.RunnableFuture;
import java.util.concurrent.atomic.AtomicLong;
import org.apache.flink.api.common.ExecutionConfig;
import org.apache.flink.api.common.JobID;
import org.apache.flink.api.common.state.MapState;
import org.apache.flink.api.common.state.MapStateDescriptor;
import org.apache.flink.api.common.typeutils.base.IntSerializer;
import org.apache.flink.api.common.typeutils.base.StringSerializer;
import org.apache.flink.api.common.typeutils.base.array.BytePrimitiveArraySerializer;
import org.apache.flink.configuration.Configuration;
import org.apache.flink.core.fs.CloseableRegistry;
import org.apache.flink.metrics.groups.UnregisteredMetricsGroup;
import org.apache.flink.runtime.checkpoint.CheckpointOptions;
import org.apache.flink.runtime.jobgraph.JobVertexID;
import org.apache.flink.runtime.memory.OpaqueMemoryResource;
import org.apache.flink.runtime.query.KvStateRegistry;
import org.apache.flink.runtime.query.TaskKvStateRegistry;
import org.apache.flink.runtime.state.AbstractKeyedStateBackend;
import org.apache.flink.runtime.state.CheckpointStateOutputStream;
import org.apache.flink.runtime.state.CheckpointStreamFactory;
import org.apache.flink.runtime.state.CheckpointedStateScope;
import org.apache.flink.runtime.state.KeyGroupRange;
import org.apache.flink.runtime.state.LocalRecoveryConfig;
import org.apache.flink.runtime.state.StreamStateHandle;
import org.apache.flink.runtime.state.UncompressedStreamCompressionDecorator;
import org.apache.flink.runtime.state.VoidNamespace;
import org.apache.flink.runtime.state.VoidNamespaceSerializer;
import org.apache.flink.runtime.state.heap.HeapKeyedStateBackendBuilder;
import org.apache.flink.runtime.state.heap.HeapPriorityQueueSetFactory;
import org.apache.flink.runtime.state.memory.ByteStreamStateHandle;
import org.apache.flink.runtime.state.metrics.LatencyTrackingStateConfig;
import org.apache.flink.runtime.state.metrics.SizeTrackingStateConfig;
import org.apache.flink.runtime.state.ttl.TtlTimeProvider;

/**
 * What a checkpoint costs the thread of a task, with the users of one bucket in one MapState, as Freshet keeps them.
 *
 * <p>Arguments: backend (heap or rocksdb), users, bytes of a user, users changed between two checkpoints, checkpoints, managed
 * memory in MB, folder for RocksDB, then RocksDB's settings as key=value. Prints a line of JSON for each checkpoint: ms of the
 * synchronous part, ms of the first write after it, bytes and ms of the asynchronous part, and microseconds for reading and
 * writing a user: elapsed, and of the CPU of the process, so that compaction counts.
 */
public final class StateBackends {
    private static final KeyGroupRange GROUPS = KeyGroupRange.of(0, 127);
    private static final AtomicLong written = new AtomicLong();

    public static void main(String[] words) throws Exception {
        int users = Integer.parseInt(words[1]);
        byte[][] values = values(Integer.parseInt(words[2]));
        int changed = Integer.parseInt(words[3]);
        int checkpoints = Integer.parseInt(words[4]);
        AbstractKeyedStateBackend<Integer> backend = words[0].equals("heap") ? heap() : rocksdb(words);
        backend.setCurrentKey(7);
        MapState<String, byte[]> state = backend.getPartitionedState(
                VoidNamespace.INSTANCE,
                VoidNamespaceSerializer.INSTANCE,
                new MapStateDescriptor<>("users-v1", StringSerializer.INSTANCE, BytePrimitiveArraySerializer.INSTANCE));
        String[] names = new String[users];
        for (int user = 0; user < users; user++) {
            names[user] = String.format("p1.%016xabcdef", user * 0x9E3779B97F4A7C15L); // as long as a pseudonym
            state.put(names[user], values[user % values.length]);
        }
        Random random = new Random(1);
        OperatingSystemMXBean system = (OperatingSystemMXBean) ManagementFactory.getOperatingSystemMXBean();
        for (int checkpoint = 1; checkpoint <= checkpoints; checkpoint++) {
            long cpu = system.getProcessCpuTime();
            long begun = System.nanoTime();
            for (int i = 0; i < changed; i++) {
                String name = names[random.nextInt(users)];
                if (state.get(name) == null) {
                    throw new IllegalStateException(name);
                }
                state.put(name, values[random.nextInt(values.length)]);
            }
            double elapsedUs = (System.nanoTime() - begun) / 1e3 / changed;
            double cpuUs = (system.getProcessCpuTime() - cpu) / 1e3 / changed;
            written.set(0);
            begun = System.nanoTime();
            RunnableFuture<?> rest = backend.snapshot(
                    checkpoint,
                    System.currentTimeMillis(),
                    new Counting(),
                    CheckpointOptions.forCheckpointWithDefaultLocation());
            double synchronousMs = (System.nanoTime() - begun) / 1e6;
            begun = System.nanoTime();
            state.put(names[random.nextInt(users)], values[0]);
            double firstWriteMs = (System.nanoTime() - begun) / 1e6;
            begun = System.nanoTime();
            rest.run();
            rest.get();
            double asynchronousMs = (System.nanoTime() - begun) / 1e6;
            backend.notifyCheckpointComplete(checkpoint);
            System.out.printf(
                    "{\"synchronous_ms\": %.3f, \"first_write_ms\": %.3f, \"bytes\": %d, \"asynchronous_ms\": %.1f, "
                            + "\"us\": %.2f, \"cpu_us\": %.2f}%n",
                    synchronousMs, firstWriteMs, written.get(), asynchronousMs, elapsedUs, cpuUs);
        }
        backend.dispose();
        System.exit(0);
    }

    /** Half of a profile are hashes, which do not compress, and half are ids of items, which do. */
    private static byte[][] values(int bytes) {
        Random random = new Random(2);
        byte[][] values = new byte[64][bytes];
        for (byte[] value : values) {
            random.nextBytes(value);
            for (int i = 0; i < bytes / 2; i++) {
                value[i] = (byte) ("item-0".charAt(i % 6) + (i % 6 == 5 ? random.nextInt(10) : 0));
            }
        }
        return values;
    }

    private static TaskKvStateRegistry registry() {
        return new KvStateRegistry().createTaskRegistry(new JobID(), new JobVertexID());
    }

    private static AbstractKeyedStateBackend<Integer> heap() throws Exception {
        return new HeapKeyedStateBackendBuilder<>(
                        registry(),
                        IntSerializer.INSTANCE,
                        StateBackends.class.getClassLoader(),
                        GROUPS.getNumberOfKeyGroups(),
                        GROUPS,
                        new ExecutionConfig(),
                        TtlTimeProvider.DEFAULT,
                        LatencyTrackingStateConfig.disabled(),
                        SizeTrackingStateConfig.disabled(),
                        Collections.emptyList(),
                        new UncompressedStreamCompressionDecorator(),
                        LocalRecoveryConfig.BACKUP_AND_RECOVERY_DISABLED,
                        new HeapPriorityQueueSetFactory(GROUPS, GROUPS.getNumberOfKeyGroups(), 128),
                        true,
                        new CloseableRegistry())
                .build();
    }

    /** As Flink builds it from these settings, with its share of managed memory. */
    @SuppressWarnings({"unchecked", "rawtypes"})
    private static AbstractKeyedStateBackend<Integer> rocksdb(String[] words) throws Exception {
        org.rocksdb.RocksDB.loadLibrary();
        long managed = Long.parseLong(words[5]) << 20;
        File folder = new File(words[6]);
        Configuration settings = new Configuration();
        for (int i = 7; i < words.length; i++) {
            String[] pair = words[i].split("=", 2);
            settings.setString(pair[0], pair[1]);
        }
        boolean partitioned = settings.get(RocksDBOptions.USE_PARTITIONED_INDEX_FILTERS);
        var shared = RocksDBMemoryControllerUtils.allocateRocksDBSharedResources(
                managed,
                settings.get(RocksDBOptions.WRITE_BUFFER_RATIO),
                settings.get(RocksDBOptions.HIGH_PRIORITY_POOL_RATIO),
                partitioned,
                RocksDBMemoryControllerUtils.RocksDBMemoryFactory.DEFAULT);
        RocksDBResourceContainer container = new RocksDBResourceContainer(
                settings,
                PredefinedOptions.valueOf(settings.get(RocksDBOptions.PREDEFINED_OPTIONS)),
                null,
                new OpaqueMemoryResource(shared, managed, () -> {}),
                folder,
                false);
        return new RocksDBKeyedStateBackendBuilder<>(
                        "bench",
                        StateBackends.class.getClassLoader(),
                        folder,
                        container,
                        name -> container.getColumnOptions(),
                        registry(),
                        IntSerializer.INSTANCE,
                        GROUPS.getNumberOfKeyGroups(),
                        GROUPS,
                        new ExecutionConfig(),
                        LocalRecoveryConfig.BACKUP_AND_RECOVERY_DISABLED,
                        new RocksDBPriorityQueueConfig(),
                        TtlTimeProvider.DEFAULT,
                        LatencyTrackingStateConfig.disabled(),
                        SizeTrackingStateConfig.disabled(),
                        new UnregisteredMetricsGroup(),
                        (name, value) -> {},
                        Collections.emptyList(),
                        new UncompressedStreamCompressionDecorator(),
                        new CloseableRegistry())
                .setEnableIncrementalCheckpointing(true)
                .build();
    }

    /** Checkpoint storage that counts bytes and drops them. */
    private static final class Counting implements CheckpointStreamFactory {
        @Override
        public CheckpointStateOutputStream createCheckpointStateOutputStream(CheckpointedStateScope scope) {
            return new CheckpointStateOutputStream() {
                private long position;

                @Override
                public void write(int one) {
                    position++;
                    written.incrementAndGet();
                }

                @Override
                public void write(byte[] bytes, int offset, int length) {
                    position += length;
                    written.addAndGet(length);
                }

                @Override
                public long getPos() {
                    return position;
                }

                @Override
                public void flush() {}

                @Override
                public void sync() {}

                @Override
                public void close() {}

                @Override
                public StreamStateHandle closeAndGetHandle() {
                    return new ByteStreamStateHandle("n" + System.nanoTime(), new byte[1]);
                }
            };
        }

        @Override
        public boolean canFastDuplicate(StreamStateHandle handle, CheckpointedStateScope scope) {
            return false;
        }

        @Override
        public List<StreamStateHandle> duplicate(List<StreamStateHandle> handles, CheckpointedStateScope scope) {
            return handles;
        }
    }
}
