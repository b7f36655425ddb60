//! QKNorm: one call for queries and keys is two norms of heads, bit for bit, wherever the two lie; which the other tests
//! judge.

mod common;

use common::{on, wave};
use ndarray::s;
use normkit::norm::{HeadNorm, Pair, split_packed};
use normkit::prelude::*;
use normkit::tensor::{DType, Layout, View, ViewMut};
use normkit::{DeviceTensor, Gradients};

const BATCH: usize = 2;
const LEN: usize = 5;
const HEADS: usize = 6;
const DIM: usize = 32;

fn made(shape: &[usize], phase: f64, dtype: DType) -> HostTensor {
    let len = shape.iter().product();
    HostTensor::from_f64(&(0..len).map(|i| wave(i, phase)).collect::<Vec<_>>(), shape, dtype).unwrap()
}

/// Output and gradient of the input of one head norm.
fn alone(norm: &HeadNorm<'_>, x: &DeviceTensor, g: &DeviceTensor) -> [HostTensor; 2] {
    let (y, saved) = norm.forward_train(x).unwrap();
    [y.read().unwrap(), norm.backward(g, x, &saved).unwrap().input.read().unwrap()]
}

#[test]
fn one_call_gives_the_bits_of_two() {
    for device in common::devices() {
        for dtype in common::dtypes(&device) {
            for key_heads in [HEADS, 2, 1] {
                let tensor = |heads, phase| on(&device, &made(&[BATCH, LEN, heads, DIM], phase, dtype));
                let (q, k) = (tensor(HEADS, 0.1), tensor(key_heads, 0.9));
                let (g_q, g_k) = (tensor(HEADS, 1.4), tensor(key_heads, 2.2));
                let (scale, of_head) =
                    (on(&device, &made(&[1], 1.0, dtype)), on(&device, &made(&[DIM], 0.3, dtype)));
                let of_heads = on(&device, &made(&[HEADS, DIM], 0.6, dtype));
                let norms = [
                    QkNorm::l2().scale(&scale),
                    QkNorm::rms().query_weight(&of_head).key_weight(&of_head),
                    QkNorm::layer().query_weight(&of_heads).key_weight(&of_head).key_bias(&of_head),
                ];
                for (which, norm) in norms.iter().enumerate() {
                    let (q_hat, k_hat, saved) = norm.forward_train(&q, &k).unwrap();
                    let grads = norm.backward(Pair { query: &g_q, key: &g_k }, &q, &k, &saved).unwrap();
                    let what = format!("{} {dtype}, {key_heads} key heads, norm {which}", device.backend());
                    let read = |t: &DeviceTensor| t.read().unwrap();
                    let query = [read(&q_hat), read(&grads.query.input)];
                    assert_eq!(query, alone(norm.query(), &q, &g_q), "{what}: queries");
                    let key = [read(&k_hat), read(&grads.key.input)];
                    assert_eq!(key, alone(norm.key(), &k, &g_k), "{what}: keys");
                }
            }
        }
    }
}

/// Queries, keys and values side by side in one tensor: read, normalized in place, and differentiated into a packed
/// gradient whose values' part is left alone.
#[test]
fn parts_of_a_packed_tensor_are_read_and_written_where_they_lie() {
    let stream = Device::Cpu.stream();
    for key_heads in [HEADS, 3] {
        let total = HEADS + 2 * key_heads;
        let shape =
            if key_heads == HEADS { vec![BATCH, LEN, 3, HEADS, DIM] } else { vec![BATCH, LEN, total, DIM] };
        let packed = made(&shape, 0.2, DType::F32);
        let [q_at, k_at, _] = split_packed(&Layout::contiguous(&shape), HEADS, key_heads).unwrap();
        let data = packed.as_slice::<f32>().unwrap();
        let part = |layout: &Layout| View::strided(data, layout.clone()).unwrap();
        let copied = |layout: &Layout| {
            let values: Vec<f32> = (0..layout.len()).map(|i| data[layout.offset_of(i)]).collect();
            HostTensor::from_vec(values, layout.shape()).unwrap()
        };
        let (q, k) = (copied(&q_at), copied(&k_at));
        let (g_q, g_k) = (made(q.shape(), 1.0, DType::F32), made(k.shape(), 2.0, DType::F32));
        let (w_q, w_k) = (made(&[DIM], 0.5, DType::F32), made(&[DIM], 1.5, DType::F32));
        let norm = QkNorm::rms().query_weight(&w_q).key_weight(&w_k);
        let (q_hat, k_hat, saved) = norm.forward_train(&q, &k).unwrap();
        let grads = norm.backward(Pair { query: &g_q, key: &g_k }, &q, &k, &saved).unwrap();

        // Into packed memory, of which ndarray lends disjoint parts.
        let values = vec![-9f32; data.len()];
        let mut output = ndarray::Array4::from_shape_vec([BATCH, LEN, total, DIM], values.clone()).unwrap();
        let mut gradient = ndarray::Array4::from_shape_vec([BATCH, LEN, total, DIM], values).unwrap();
        let end = HEADS + key_heads;
        let mut statistics = [
            HostTensor::zeros(&[BATCH * LEN * HEADS, 4], DType::F32).unwrap(),
            HostTensor::zeros(&[BATCH * LEN * key_heads, 4], DType::F32).unwrap(),
        ];
        {
            let (to_q, to_k) = output.multi_slice_mut((s![.., .., ..HEADS, ..], s![.., .., HEADS..end, ..]));
            let [s_q, s_k] = &mut statistics;
            norm.forward_into(
                Pair { query: &part(&q_at), key: &part(&k_at) },
                Pair {
                    query: &mut ViewMut::from_ndarray(to_q).unwrap(),
                    key: &mut ViewMut::from_ndarray(to_k).unwrap(),
                },
                Pair { query: Some(&mut s_q.view_mut().unwrap()), key: Some(&mut s_k.view_mut().unwrap()) },
                &stream,
            )
            .unwrap();
            let (to_q, to_k) =
                gradient.multi_slice_mut((s![.., .., ..HEADS, ..], s![.., .., HEADS..end, ..]));
            let into = |view| Gradients { input: Some(view), ..Gradients::default() };
            norm.backward_into(
                Pair { query: &g_q.view().unwrap(), key: &g_k.view().unwrap() },
                Pair { query: &part(&q_at), key: &part(&k_at) },
                Pair { query: &statistics[0].view().unwrap(), key: &statistics[1].view().unwrap() },
                Pair {
                    query: into(ViewMut::from_ndarray(to_q).unwrap()),
                    key: into(ViewMut::from_ndarray(to_k).unwrap()),
                },
                &mut Workspace::new(),
                &stream,
            )
            .unwrap();
        }
        for (packed, [query, key]) in
            [(&output, [&q_hat, &k_hat]), (&gradient, [&grads.query.input, &grads.key.input])]
        {
            let of = |range| packed.slice(range).iter().map(|&x| f64::from(x)).collect::<Vec<_>>();
            assert_eq!(of(s![.., .., ..HEADS, ..]), query.to_f64());
            assert_eq!(of(s![.., .., HEADS..end, ..]), key.to_f64());
            assert!(packed.slice(s![.., .., end.., ..]).iter().all(|&x| x == -9.0));
        }
    }
}
