package peers;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import java.util.Map;
import org.apache.kafka.connect.data.Schema;
import org.apache.kafka.connect.data.SchemaAndValue;
import org.apache.kafka.connect.data.SchemaBuilder;
import org.apache.kafka.connect.data.Struct;
import org.apache.kafka.connect.errors.DataException;
import org.apache.kafka.connect.storage.Converter;

/** Reads the schemaless event JSON straight into a flat Struct with a fixed schema (what JsonConverter cannot do). */
public class PlainJsonConverter implements Converter {
  private static final Schema S = SchemaBuilder.struct().name("messages")
      .field("message_id", Schema.STRING_SCHEMA).field("conversation", Schema.STRING_SCHEMA)
      .field("sender", Schema.STRING_SCHEMA).field("recipient", Schema.STRING_SCHEMA)
      .field("content", Schema.STRING_SCHEMA).field("message_type", Schema.INT32_SCHEMA)
      .field("timestamp", Schema.INT64_SCHEMA).build();
  private final ObjectMapper mapper = new ObjectMapper();

  @Override public void configure(Map<String, ?> c, boolean isKey) {}
  @Override public byte[] fromConnectData(String t, Schema s, Object v) { throw new DataException("sink only"); }
  @Override public SchemaAndValue toConnectData(String topic, byte[] b) {
    if (b == null) return SchemaAndValue.NULL;
    try {
      JsonNode m = mapper.readTree(b).get("message");
      String from = m.get("from").asText(), to = m.get("to").asText();
      String conversation = from.compareTo(to) <= 0 ? from + ":" + to : to + ":" + from;
      return new SchemaAndValue(S, new Struct(S).put("message_id", m.get("message_id").textValue())
          .put("conversation", conversation).put("sender", from).put("recipient", to)
          .put("content", m.get("content").textValue()).put("message_type", m.get("message_type").intValue())
          .put("timestamp", m.get("timestamp").longValue()));
    } catch (java.io.IOException e) { throw new DataException(e); }
  }
}
