import java.util.Collections;
import java.util.List;

import org.opensearch.common.settings.Settings;
import org.opensearch.node.InternalSettingsPreparer;
import org.opensearch.node.Node;
import org.opensearch.transport.Netty4Plugin;

/** OpenSearch as a library: one node on loopback, for tests. Arguments: a folder, the ports for HTTP and transport. */
public class OsNode extends Node {
    private OsNode(Settings settings) {
        super(InternalSettingsPreparer.prepareEnvironment(settings, Collections.emptyMap(), null, () -> "freshet"),
                List.of(Netty4Plugin.class), false);
    }

    public static void main(String[] arguments) throws Exception {
        Settings settings = Settings.builder().put("path.home", arguments[0]).put("http.port", arguments[1])
                .put("transport.port", arguments[2]).put("network.host", "127.0.0.1")
                .put("discovery.type", "single-node").put("node.name", "freshet").put("transport.type", "netty4")
                .put("http.type", "netty4").put("cluster.routing.allocation.disk.threshold_enabled", false).build();
        new OsNode(settings).start();
        Thread.sleep(Long.MAX_VALUE);
    }
}
