//! From the log to Kafka.

use ferroflow_bus::kafka::{CURSOR, KafkaConfig, KafkaError, KafkaRelay};
use rdkafka::message::{Headers as _, Message as _};

use super::scene::{LIMIT, Scene, relay_until};

fn header(message: &rdkafka::message::OwnedMessage, name: &str) -> String {
    let headers = message.headers().unwrap();
    let found = headers.iter().find(|header| header.key == name).unwrap();
    String::from_utf8_lossy(found.value.unwrap()).into_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn events_arrive_in_the_order_of_their_keys_in_a_topic_made_as_the_settings_say() {
    let Some(scene) = Scene::open() else { return };
    let events = scene.events(&["a", "b", "c", "d", "e"], 500);

    scene.relay(&events).await;

    let messages = scene.read(&scene.topic, events.len());
    for key in ["a", "b", "c", "d", "e"] {
        let key = format!("default/{key}");
        let of_key: Vec<_> = messages
            .iter()
            .filter(|message| message.key() == Some(key.as_bytes()))
            .collect();
        let sequences: Vec<i64> = of_key
            .iter()
            .map(|message| header(message, "ce_sequence").parse().unwrap())
            .collect();
        assert_eq!(sequences, (1..=500).collect::<Vec<_>>(), "{key}");
        assert!(
            of_key
                .iter()
                .all(|one| one.partition() == of_key[0].partition())
        );
    }
    assert!(messages.iter().all(|message| message.partition() < 4));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_goes_on_where_the_last_one_stopped_and_what_it_moved_may_be_forgotten() {
    let Some(scene) = Scene::open() else { return };
    let events = scene.events(&["a"], 30);
    let bus = scene.bus().await;
    bus.publish(&events[..10]).await.unwrap();
    let forget = |bus: ferroflow_bus::Bus| async move { bus.prune(i64::MAX, Some(CURSOR)).await };

    // Nothing is in Kafka, so nothing is forgotten, however old.
    assert_eq!(forget(bus.clone()).await.unwrap(), 0);
    assert_eq!(bus.backlog(CURSOR).await.unwrap().events, 10);
    let relay = KafkaRelay::open(&scene.config, bus.clone()).await.unwrap();
    relay_until(&relay, 10).await;
    relay.close().await.unwrap();
    drop(relay);
    assert_eq!(bus.backlog(CURSOR).await.unwrap().events, 0);
    bus.publish(&events[10..]).await.unwrap();
    let backlog = bus.backlog(CURSOR).await.unwrap();
    assert_eq!(
        (backlog.events, backlog.oldest),
        (20, Some(events[10].time))
    );
    assert_eq!(forget(bus.clone()).await.unwrap(), 10);

    let relay = KafkaRelay::open(&scene.config, bus.clone()).await.unwrap();
    relay_until(&relay, 20).await;

    let messages = scene.read(&scene.topic, 30);
    let sequences: Vec<i64> = messages
        .iter()
        .map(|message| header(message, "ce_sequence").parse().unwrap())
        .collect();
    assert_eq!(sequences, (1..=30).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_waits_stores_its_position_a_moment_later() {
    let Some(scene) = Scene::open() else { return };
    let bus = scene.bus().await;
    bus.publish(&scene.events(&["a"], 1)).await.unwrap();
    let relay = KafkaRelay::open(&scene.config, bus.clone()).await.unwrap();
    relay_until(&relay, 1).await;

    let begun = std::time::Instant::now();
    while bus.backlog(CURSOR).await.unwrap().events > 0 {
        assert!(begun.elapsed() < LIMIT, "the position is not stored");
        relay.wait().await;
        relay.tick().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_that_cannot_be_made_says_how_it_can() {
    let Some(scene) = Scene::open() else { return };
    let config = KafkaConfig {
        replication: Some(7),
        ..scene.config.clone()
    };
    let bus = scene.bus().await;
    bus.publish(&scene.events(&["a"], 1)).await.unwrap();
    let relay = KafkaRelay::open(&config, bus).await.unwrap();

    let refused = relay.tick().await.unwrap_err();

    assert!(matches!(refused, KafkaError::Topic { .. }), "{refused}");
    assert!(
        refused.to_string().contains("events.kafka.replication = 7"),
        "{refused}"
    );
}
