package peers;

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.*;
import com.zaxxer.hikari.*;
import io.confluent.parallelconsumer.*;
import java.util.*;
import org.apache.kafka.clients.consumer.*;
import org.apache.kafka.common.serialization.*;

/** Confluent's Parallel Consumer in the order of keys: a batch may hold events of many. */
public class Pc {
  @JsonIgnoreProperties(ignoreUnknown = true)
  public record Msg(String message_id, long from, long to, String content, int message_type, long timestamp) {
    /** Both ids, sorted as text. */
    String conversation() {
      String a = Long.toString(from), b = Long.toString(to);
      return a.compareTo(b) <= 0 ? a + ":" + b : b + ":" + a;
    }
  }
  @JsonIgnoreProperties(ignoreUnknown = true)
  public record Ev(Msg message) {}
  static String env(String k, String d) { return System.getenv().getOrDefault(k, d); }

  public static void main(String[] a) throws Exception {
    int batch = Integer.parseInt(env("BATCH", "500")), conc = Integer.parseInt(env("CONCURRENCY", "8"));
    HikariConfig h = new HikariConfig();
    h.setJdbcUrl(System.getenv("JDBC_URL"));
    h.setMaximumPoolSize(conc + 2);
    HikariDataSource ds = new HikariDataSource(h);
    String sql = "insert into messages (message_id, conversation, sender, recipient, content, message_type, timestamp)"
        + " values (?,?,?,?,?,?,?) on conflict (message_id) do nothing";
    ObjectReader reader = new ObjectMapper().readerFor(Ev.class);
    var consumer = new KafkaConsumer<String, byte[]>(Map.of("bootstrap.servers", System.getenv("BROKERS"), "group.id", System.getenv("GROUP"),
        "auto.offset.reset", "earliest", "enable.auto.commit", false, "max.poll.records", Math.max(500, batch)), new StringDeserializer(), new ByteArrayDeserializer());
    var opt = ParallelConsumerOptions.<String, byte[]>builder().consumer(consumer)
        .ordering(ParallelConsumerOptions.ProcessingOrder.valueOf(env("ORDER", "KEY")))
        .maxConcurrency(conc).batchSize(batch).build();
    var pc = ParallelStreamProcessor.createEosStreamProcessor(opt);
    pc.subscribe(List.of(System.getenv("TOPIC")));
    pc.poll(ctx -> {
      try (var cn = ds.getConnection(); var ps = cn.prepareStatement(sql)) {
        for (var r : ctx.getConsumerRecordsFlattened()) {
          Msg m = ((Ev) reader.readValue(r.value())).message();
          ps.setString(1, m.message_id()); ps.setString(2, m.conversation());
          ps.setString(3, Long.toString(m.from())); ps.setString(4, Long.toString(m.to()));
          ps.setString(5, m.content()); ps.setInt(6, m.message_type()); ps.setLong(7, m.timestamp());
          ps.addBatch();
        }
        ps.executeBatch();
      } catch (Exception e) { throw new RuntimeException(e); }
    });
    Thread.currentThread().join();
  }
}
