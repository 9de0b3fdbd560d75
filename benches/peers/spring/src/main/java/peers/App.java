package peers;

// A batch listener of Spring Kafka that writes with JdbcTemplate; with REDIS_CHECK it looks in Redis before and marks after.

import com.fasterxml.jackson.annotation.JsonIgnoreProperties;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.ObjectReader;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.springframework.beans.factory.annotation.Value;
import org.springframework.boot.SpringApplication;
import org.springframework.boot.autoconfigure.SpringBootApplication;
import org.springframework.data.redis.connection.RedisStringCommands;
import org.springframework.data.redis.core.RedisCallback;
import org.springframework.data.redis.core.StringRedisTemplate;
import org.springframework.data.redis.core.types.Expiration;
import org.springframework.jdbc.core.JdbcTemplate;
import org.springframework.kafka.annotation.KafkaListener;

@SpringBootApplication
public class App {
  public static void main(String[] a) { SpringApplication.run(App.class, a); }

  // One write per pipeline instead of one per SET (the default flushes each command).
  @org.springframework.context.annotation.Bean
  static org.springframework.beans.factory.config.BeanPostProcessor flushOnClose() {
    return new org.springframework.beans.factory.config.BeanPostProcessor() {
      public Object postProcessBeforeInitialization(Object b, String n) {
        if (b instanceof org.springframework.data.redis.connection.lettuce.LettuceConnectionFactory f)
          f.setPipeliningFlushPolicy(org.springframework.data.redis.connection.lettuce.LettuceConnection.PipeliningFlushPolicy.flushOnClose());
        return b;
      }
    };
  }

  @JsonIgnoreProperties(ignoreUnknown = true)
  public record Msg(String message_id, long from, long to, String content, int message_type, long timestamp) {
    /** Both ids, sorted as text. */
    String conversation() {
      String a = Long.toString(from), b = Long.toString(to);
      return a.compareTo(b) <= 0 ? a + ":" + b : b + ":" + a;
    }
  }
  @JsonIgnoreProperties(ignoreUnknown = true)
  public record Ev(String type, Msg message, long timestamp) {}

  @org.springframework.stereotype.Component
  public static class Sink {
    private final JdbcTemplate jdbc;
    private final StringRedisTemplate redis;
    private final boolean useRedis;
    private static final String SQL = "insert into messages (message_id, conversation, sender, recipient, content, message_type, timestamp)"
        + " values (?,?,?,?,?,?,?) on conflict (message_id) do nothing";
    private final ObjectReader reader = new ObjectMapper().readerFor(Ev.class);

    public Sink(JdbcTemplate jdbc, StringRedisTemplate redis, @Value("${peer.redis}") boolean useRedis) {
      this.jdbc = jdbc; this.redis = redis; this.useRedis = useRedis;
    }

    @KafkaListener(topics = "${peer.topic}", batch = "true", concurrency = "${peer.concurrency}")
    public void on(List<ConsumerRecord<String, byte[]>> records) throws Exception {
      List<Msg> msgs = new ArrayList<>(records.size());
      for (var r : records) msgs.add(((Ev) reader.readValue(r.value())).message());
      if (useRedis) {
        List<String> keys = msgs.stream().map(m -> "peer:" + m.message_id()).toList();
        List<String> seen = redis.opsForValue().multiGet(keys);
        List<Msg> fresh = new ArrayList<>(msgs.size());
        for (int i = 0; i < msgs.size(); i++) if (seen == null || seen.get(i) == null) fresh.add(msgs.get(i));
        insert(fresh);
        byte[] one = "1".getBytes(StandardCharsets.US_ASCII);
        redis.executePipelined((RedisCallback<Object>) c -> {
          for (Msg m : fresh) c.stringCommands().set(("peer:" + m.message_id()).getBytes(StandardCharsets.US_ASCII), one, Expiration.seconds(900), RedisStringCommands.SetOption.upsert());
          return null;
        });
      } else insert(msgs);
    }

    private void insert(List<Msg> msgs) {
      if (msgs.isEmpty()) return;
      jdbc.batchUpdate(SQL, msgs, msgs.size(), (ps, m) -> {
        ps.setString(1, m.message_id()); ps.setString(2, m.conversation());
        ps.setString(3, Long.toString(m.from())); ps.setString(4, Long.toString(m.to()));
        ps.setString(5, m.content()); ps.setInt(6, m.message_type()); ps.setLong(7, m.timestamp());
      });
    }
  }
}
