//! Any sequence of operations against a map.

use super::{INDEX, World, dump, get, sample};
use crate::error::Code;
use crate::types::ChunkHash;
use bytes::Bytes;
use proptest::prelude::*;
use std::collections::BTreeMap;

#[derive(Clone, Debug)]
enum Step {
    Put(u64),
    /// Several at once, so that they share batches.
    PutAll(Vec<u64>),
    Get(u64),
    Range(u64, u16, u16),
    Remove(u64),
    Compact,
    Roll,
    FlushIndex,
    Restart,
    /// Restart with an empty index.
    LoseIndex,
}

fn step() -> impl Strategy<Value = Step> {
    let salt = 0u64..24;
    prop_oneof![
        6 => salt.clone().prop_map(Step::Put),
        2 => prop::collection::vec(salt.clone(), 1..8).prop_map(Step::PutAll),
        3 => salt.clone().prop_map(Step::Get),
        3 => (salt.clone(), any::<u16>(), any::<u16>()).prop_map(|(s, a, b)| Step::Range(s, a, b)),
        5 => salt.prop_map(Step::Remove),
        2 => Just(Step::Compact),
        1 => Just(Step::Roll),
        1 => Just(Step::FlushIndex),
        1 => Just(Step::Restart),
        1 => Just(Step::LoseIndex),
    ]
}

/// Chunk number `salt`: empty, tiny, small, at the limits of groups and slices, large.
fn chunk(salt: u64) -> Bytes {
    let sizes = [
        0, 1, 63, 64, 900, 1_024, 2_047, 2_048, 2_049, 4_096, 4_097, 9_500,
    ];
    sample(salt, sizes[salt as usize % sizes.len()])
}

async fn run(steps: Vec<Step>) {
    let mut world = World::new(1).await;
    let mut model: BTreeMap<ChunkHash, Bytes> = BTreeMap::new();
    let mut indexes = 0;
    let mut index = INDEX.to_string();
    for step in steps {
        match step {
            Step::Put(salt) => {
                let hash = world.put(&chunk(salt)).await.unwrap();
                model.insert(hash, chunk(salt));
            }
            Step::PutAll(salts) => {
                let chunks: Vec<Bytes> = salts.into_iter().map(chunk).collect();
                let puts = chunks.iter().map(|bytes| world.put(bytes));
                for (put, bytes) in futures::future::join_all(puts)
                    .await
                    .into_iter()
                    .zip(&chunks)
                {
                    model.insert(put.unwrap(), bytes.clone());
                }
            }
            Step::Get(salt) => {
                let hash = ChunkHash::of(&chunk(salt));
                let got = get(&world.store, hash).await;
                match model.get(&hash) {
                    Some(bytes) => assert_eq!(got.unwrap(), bytes),
                    None => assert_eq!(got.unwrap_err().code, Code::NotFound),
                }
            }
            Step::Range(salt, a, b) => {
                let bytes = chunk(salt);
                let hash = ChunkHash::of(&bytes);
                let (from, len) = (u64::from(a) % 9_600, u64::from(b) % 9_600);
                let got = world.store.read(hash, from, len).await;
                let fits = from + len <= bytes.len() as u64;
                match (model.contains_key(&hash), fits) {
                    (false, _) => assert_eq!(got.unwrap_err().code, Code::NotFound),
                    (true, false) => assert_eq!(got.unwrap_err().code, Code::Usage),
                    (true, true) => {
                        let range = from as usize..(from + len) as usize;
                        assert_eq!(got.unwrap(), bytes.slice(range));
                    }
                }
            }
            Step::Remove(salt) => {
                let hash = ChunkHash::of(&chunk(salt));
                world.store.remove(hash).await.unwrap();
                model.remove(&hash);
            }
            Step::Compact => {
                world.store.compact().await.unwrap();
            }
            Step::Roll => world.store.roll().await.unwrap(),
            Step::FlushIndex => world.store.flush_index().await.unwrap(),
            Step::Restart => world = world.restart(&index).await,
            Step::LoseIndex => {
                let kept = dump(&world.store).await;
                indexes += 1;
                index = format!("{INDEX}{indexes}");
                world = world.restart(&index).await;
                // Invariant 4.
                assert_eq!(dump(&world.store).await, kept);
            }
        }
        assert_eq!(world.store.problems_at_open(), Vec::<String>::new());
        same(&world, &model).await;
    }
    let report = world.store.check().await.unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.chunks, model.len() as u64);
    world.checked();
}

async fn same(world: &World, model: &BTreeMap<ChunkHash, Bytes>) {
    let bytes = model.values().map(|bytes| bytes.len() as u64).sum();
    assert_eq!(world.store.totals(), (model.len() as u64, bytes));
    let mut listed = Vec::new();
    let mut from = Some(ChunkHash([0; 32]));
    while let Some(start) = from {
        let page = world.store.list(start, None, 3).await.unwrap();
        from = (page.len() == 3)
            .then(|| super::super::after(page[2].0))
            .flatten();
        listed.extend(page);
    }
    let expected: Vec<(ChunkHash, u64)> = model
        .iter()
        .map(|(hash, bytes)| (*hash, bytes.len() as u64))
        .collect();
    assert_eq!(listed, expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn any_sequence_of_operations_behaves_as_a_map(
        steps in prop::collection::vec(step(), 1..60)
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .build()
            .unwrap();
        runtime.block_on(run(steps));
    }
}
