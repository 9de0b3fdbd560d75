# Apache Kafka, one node that is broker and controller, from Maven Central's jars. Sourced by services.sh.
# shellcheck shell=bash disable=SC2154

data_kafka() { echo "$dir/kafka"; }

start_kafka() {
  mkdir -p "$dir/kafka"
  fetch_kafka
  write_kafka_properties
  if [ ! -e "$dir/kafka/data/meta.properties" ]; then format_kafka; fi
  spawn kafka java -Xms512m -Xmx512m -Dlog4j2.configurationFile="$dir/kafka/log4j2.properties" \
    -cp "$kafka_libs/*" kafka.Kafka "$dir/kafka/server.properties"
}

# The copy of the pom says which packages are there; it comes last, so an interrupted download is seen.
fetch_kafka() {
  local pom=$root/scripts/kafka/pom.xml libs=$kafka_libs
  if cmp -s "$pom" "$libs/pom.xml"; then return; fi
  say "fetching Kafka's packages"
  rm -rf "$libs"
  mvn -q -B -f "$pom" dependency:copy-dependencies -DoutputDirectory="$libs" > "$dir/maven.log" 2>&1 9>&- \
    || fail "fetching Kafka's packages failed; see $dir/maven.log"
  cp "$pom" "$libs/pom.xml"
}

# A cluster of one: no replicas, no wait for more members of a group, short sessions for the tests of takeover.
write_kafka_properties() {
  local port controller name listens advertises more='' advertised='' map=''
  port=$(port_of kafka) controller=$(port_of controller)
  # Further listeners, each advertised at a port of somebody else's: a proxy's. Lines of: NAME PORT ADVERTISED_PORT
  while read -r name listens advertises; do
    more+=",$name://127.0.0.1:$listens" advertised+=",$name://127.0.0.1:$advertises" map+=",$name:PLAINTEXT"
  done < <(cat "$dir/kafka.listeners" 2> /dev/null)
  cat > "$dir/kafka/server.properties" << PROPERTIES
process.roles=broker,controller
node.id=1
controller.quorum.bootstrap.servers=127.0.0.1:$controller
listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller$more
advertised.listeners=PLAINTEXT://127.0.0.1:$port,CONTROLLER://127.0.0.1:$controller$advertised
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT$map
inter.broker.listener.name=PLAINTEXT
authorizer.class.name=org.apache.kafka.metadata.authorizer.StandardAuthorizer
allow.everyone.if.no.acl.found=true
controller.listener.names=CONTROLLER
log.dirs=$dir/kafka/data
auto.create.topics.enable=false
delete.topic.enable=true
group.initial.rebalance.delay.ms=0
group.min.session.timeout.ms=1000
group.consumer.min.session.timeout.ms=1000
group.consumer.session.timeout.ms=6000
group.consumer.min.heartbeat.interval.ms=100
group.consumer.heartbeat.interval.ms=500
offsets.topic.replication.factor=1
offsets.topic.num.partitions=8
transaction.state.log.replication.factor=1
transaction.state.log.min.isr=1
share.coordinator.state.topic.replication.factor=1
share.coordinator.state.topic.min.isr=1
PROPERTIES
  cat > "$dir/kafka/log4j2.properties" << 'PROPERTIES'
rootLogger.level=warn
rootLogger.appenderRef.out.ref=out
appender.out.type=Console
appender.out.name=out
appender.out.layout.type=PatternLayout
appender.out.layout.pattern=%d %p %c: %m%n
PROPERTIES
}

# Denies everybody to write a topic, or allows it again: deny TOPIC, allow TOPIC.
access_kafka() {
  local action=--add
  if [ "$1" = allow ]; then action=--remove; fi
  java -Xmx256m -cp "$kafka_libs/*" org.apache.kafka.tools.AclCommand --bootstrap-server "127.0.0.1:$(port_of kafka)" \
    "$action" --force --deny-principal 'User:*' --operation Write --topic "$2" 2>> "$dir/kafka.log"
}

format_kafka() {
  local id
  id=$(python3 -c 'import base64, uuid; print(base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("="))')
  # "=": an id may begin with a dash.
  java -Xmx256m -Dlog4j2.configurationFile="$dir/kafka/log4j2.properties" -cp "$kafka_libs/*" \
    kafka.tools.StorageTool format --standalone --cluster-id="$id" --config="$dir/kafka/server.properties" \
    >> "$dir/kafka.log" 2>&1 || fail "formatting Kafka's log failed; see $dir/kafka.log"
}

# A Metadata request (key 3, version 1, no topics). The port answers before the broker is let into the cluster,
# and topics cannot be made until the answer's list of brokers has it.
answers_kafka() {
  python3 - "$(port_of kafka)" << 'PY'
import socket, struct, sys
with socket.create_connection(("127.0.0.1", int(sys.argv[1])), 1) as s:
    s.settimeout(2)
    request = struct.pack(">hhih4si", 3, 1, 1, 4, b"weir", 0)
    s.sendall(struct.pack(">i", len(request)) + request)
    _size, _correlation, brokers = struct.unpack(">iii", s.recv(12, socket.MSG_WAITALL))
    sys.exit(0 if brokers > 0 else 1)
PY
}
