//! Queries and keys wherever they lie, normalized in one call or in two.

use normkit::norm::{Pair, Rotary, split_packed};
use normkit::prelude::*;
use normkit::spec::RotaryStyle;
use normkit::tensor::{DType, HostTensor, Layout, View, ViewMut};
use normkit::{Device, DeviceTensor, Gradients, Result, Stream};

/// How queries and keys of `[batch, seq, heads, dim]` lie in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    /// Each by itself.
    Apart,
    /// Beside each other and the values, `[batch, seq, 3, heads, dim]` or `[batch, seq, heads + 2 * key_heads, dim]`; and so
    /// the results.
    Packed,
    /// Each by itself, as `[batch, heads, seq, dim]`.
    HeadsFirst,
}

/// A call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) norm: fn() -> QkNorm<'static>,
    pub(crate) dtype: DType,
    pub(crate) tokens: [usize; 2],
    /// Of the queries and of the keys.
    pub(crate) heads: [usize; 2],
    pub(crate) dim: usize,
    pub(crate) place: Place,
    /// The style of a rotary embedding, and whether positions choose its rows.
    pub(crate) rotary: Option<(RotaryStyle, bool)>,
    /// Whether the keys have a weight, as the queries have; both have a bias where they are alike.
    pub(crate) alike: bool,
    pub(crate) statistics: bool,
}

impl Call {
    pub(crate) fn new(dtype: DType, heads: [usize; 2], place: Place) -> Self {
        Call {
            norm: QkNorm::rms,
            dtype,
            tokens: [2, 9],
            heads,
            dim: 48,
            place,
            rotary: None,
            alike: true,
            statistics: true,
        }
    }
}

/// What came out, by name.
pub(crate) type Results = Vec<(&'static str, Vec<f64>)>;

fn made(device: &Device, shape: &[usize], phase: f64, dtype: DType) -> DeviceTensor {
    let values: Vec<f64> = (0..shape.iter().product()).map(|i| super::wave(i, phase)).collect();
    device.upload(&HostTensor::from_f64(&values, shape, dtype).unwrap()).unwrap()
}

impl Call {
    fn shapes(&self) -> [[usize; 4]; 2] {
        let [batch, seq] = self.tokens;
        self.heads.map(|heads| [batch, seq, heads, self.dim])
    }

    /// Where both lie in one piece of memory, and its elements.
    fn layouts(&self) -> ([Layout; 2], usize) {
        let ([batch, seq], [heads, key_heads], dim) = (self.tokens, self.heads, self.dim);
        let lengths = self.shapes().map(|shape| shape.iter().product::<usize>());
        let strided = |shape: &[usize; 4], offset: usize| {
            let [_, seq, heads, dim] = shape.map(|size| size as isize);
            let strides = match self.place {
                Place::HeadsFirst => [heads * seq * dim, dim, seq * dim, 1],
                _ => [seq * heads * dim, heads * dim, dim, 1],
            };
            Layout::strided(shape, &strides, offset).unwrap()
        };
        if self.place != Place::Packed {
            let [q, k] = self.shapes();
            // The keys begin as well aligned as they would in memory of their own.
            let from = lengths[0].next_multiple_of(64);
            return ([strided(&q, 0), strided(&k, from)], from + lengths[1]);
        }
        let shape = match heads == key_heads {
            true => vec![batch, seq, 3, heads, dim],
            false => vec![batch, seq, heads + 2 * key_heads, dim],
        };
        let [q, k, _] = split_packed(&Layout::contiguous(&shape), heads, key_heads).unwrap();
        ([q, k], shape.iter().product())
    }

    /// Everything that the call computes on a stream: by one call for both, or by one for each.
    pub(crate) fn results(&self, together: bool, stream: &Stream<'_>) -> Result<Results> {
        let (device, dtype, shapes) = (stream.device(), self.dtype, self.shapes());
        let (at, len) = self.layouts();
        let (x, g) = (made(&device, &[len], 0.3, dtype), made(&device, &[len], 1.7, dtype));
        let [x_q, x_k] = parts(&x, &at)?;
        let [g_q, g_k] = parts(&g, &at)?;
        let parameters = [0.4, 1.1, 2.3, 3.6].map(|phase| made(&device, &[self.dim], phase, dtype));
        let [w_q, w_k, b_q, b_k] = &parameters;
        let tables = self.tables(&device);
        let mut norm = (self.norm)().query_weight(w_q);
        if self.alike {
            norm = norm.key_weight(w_k).query_bias(b_q).key_bias(b_k);
        }
        if let Some((style, _)) = self.rotary {
            let [cos, sin, positions] = &tables;
            let rotary = match style {
                RotaryStyle::HalfSplit => Rotary::half_split(cos, sin),
                RotaryStyle::Interleaved => Rotary::interleaved(cos, sin),
            };
            let rotary = if self.rotary.is_some_and(|(_, chosen)| chosen) {
                rotary.positions(positions)
            } else {
                rotary
            };
            norm = norm.rotary(&rotary);
        }

        let is_one = self.place == Place::Packed && device.backend() != "wgpu";
        let made = || -> Result<Vec<DeviceTensor>> {
            match is_one {
                true => Ok(vec![device.zeros(&[len], dtype)?]),
                false => shapes.iter().map(|shape| device.zeros(shape, dtype)).collect(),
            }
        };
        let (mut outputs, mut gradients) = (made()?, made()?);
        let rows = shapes.map(|[batch, seq, heads, _]| batch * seq * heads);
        let mut statistics = rows.map(|rows| device.zeros(&[rows, 4], dtype.compute()).unwrap());
        let like = || device.zeros(&[self.dim], dtype);
        let mut of_parameters = [like()?, like()?, like()?, like()?];
        let workspace = &mut Workspace::new();
        {
            let [mut y_q, mut y_k] = parts_mut(&mut outputs, &at)?;
            let [s_q, s_k] = &mut statistics;
            let (mut s_q, mut s_k) = (s_q.view_mut()?, s_k.view_mut()?);
            let (s_q, s_k) =
                (Some(&mut s_q).filter(|_| self.statistics), Some(&mut s_k).filter(|_| self.statistics));
            if together {
                let (input, output) =
                    (Pair { query: &x_q, key: &x_k }, Pair { query: &mut y_q, key: &mut y_k });
                norm.forward_into(input, output, Pair { query: s_q, key: s_k }, stream)?;
            } else {
                norm.query().forward_into(&x_q, &mut y_q, s_q, stream)?;
                norm.key().forward_into(&x_k, &mut y_k, s_k, stream)?;
            }
        }
        if self.statistics {
            let [d_q, d_k] = parts_mut(&mut gradients, &at)?;
            let [dw_q, dw_k, db_q, db_k] = &mut of_parameters;
            let (weight, bias) = (Some(dw_q.view_mut()?), Some(db_q.view_mut()?).filter(|_| self.alike));
            let query = Gradients { input: Some(d_q), weight, bias, ..Gradients::default() };
            let (weight, bias) = (Some(dw_k.view_mut()?), Some(db_k.view_mut()?));
            let (weight, bias) = (weight.filter(|_| self.alike), bias.filter(|_| self.alike));
            let key = Gradients { input: Some(d_k), weight, bias, ..Gradients::default() };
            let [s_q, s_k] = &statistics;
            let (s_q, s_k) = (s_q.view()?, s_k.view()?);
            if together {
                let (grad, input) = (Pair { query: &g_q, key: &g_k }, Pair { query: &x_q, key: &x_k });
                let statistics = Pair { query: &s_q, key: &s_k };
                norm.backward_into(grad, input, statistics, Pair { query, key }, workspace, stream)?;
            } else {
                norm.query().backward_into(&g_q, &x_q, Some(&s_q), query, workspace, stream)?;
                norm.key().backward_into(&g_k, &x_k, Some(&s_k), key, workspace, stream)?;
            }
        }
        let [y_q, y_k] = read(&outputs, &at)?;
        let [d_q, d_k] = read(&gradients, &at)?;
        let mut all = vec![("query", y_q), ("key", y_k), ("query gradient", d_q), ("key gradient", d_k)];
        let names = ["query statistics", "key statistics"].into_iter();
        let names = names.chain(["query weight", "key weight", "query bias", "key bias"]);
        for (name, tensor) in names.zip(statistics.iter().chain(&of_parameters)) {
            all.push((name, tensor.read()?.to_f64()));
        }
        Ok(all)
    }

    /// Cosines, sines and positions; the last has one axis where there shall be none.
    fn tables(&self, device: &Device) -> [DeviceTensor; 3] {
        let ([batch, seq], pairs) = (self.tokens, self.dim / 2 - 4);
        let chosen: Vec<f64> = (0..batch * seq).map(|token| (token * 7 % 11) as f64).collect();
        let (rows, positions) = match self.rotary {
            Some((_, true)) => (vec![11, pairs], vec![batch, seq]),
            _ => (vec![1, seq, pairs], vec![batch * seq]),
        };
        let positions = HostTensor::from_f64(&chosen, &positions, DType::I32).unwrap();
        let [cos, sin] = [0.9, 2.9].map(|phase| made(device, &rows, phase, DType::F32));
        [cos, sin, device.upload(&positions).unwrap()]
    }
}

fn parts<'t>(tensor: &'t DeviceTensor, at: &[Layout; 2]) -> Result<[View<'t>; 2]> {
    let part = |layout: &Layout| tensor.view()?.with_layout(layout.clone());
    Ok([part(&at[0])?, part(&at[1])?])
}

/// What was written to two tensors, or to parts of one, of which the rest is zero as before.
fn read(tensors: &[DeviceTensor], at: &[Layout; 2]) -> Result<[Vec<f64>; 2]> {
    let values = |tensor: &DeviceTensor| Ok(tensor.read()?.to_f64());
    match tensors {
        [query, key] => Ok([values(query)?, values(key)?]),
        [packed] => {
            let mut all: Vec<f64> = values(packed)?;
            let parts = at.each_ref().map(|layout| {
                let part = (0..layout.len()).map(|i| std::mem::take(&mut all[layout.offset_of(i)]));
                part.collect::<Vec<_>>()
            });
            assert!(all.iter().all(|&x| x == 0.0), "written outside of queries and keys");
            Ok(parts)
        }
        _ => unreachable!("one or two"),
    }
}

/// Two tensors to write, or parts of one.
fn parts_mut<'t>(tensors: &'t mut [DeviceTensor], at: &[Layout; 2]) -> Result<[ViewMut<'t>; 2]> {
    match tensors {
        [query, key] => Ok([query.view_mut()?, key.view_mut()?]),
        [packed] => Ok([part_mut(packed, &at[0])?, part_mut(packed, &at[1])?]),
        _ => unreachable!("one or two"),
    }
}

/// A part of a tensor to write, beside others of the same tensor.
fn part_mut<'t>(tensor: &mut DeviceTensor, layout: &Layout) -> Result<ViewMut<'t>> {
    match tensor {
        DeviceTensor::Host(tensor) => {
            let (dtype, bytes) = (tensor.dtype(), tensor.bytes_mut());
            // SAFETY: the tensor outlives the views of its caller, and those are of parts that share no element.
            unsafe { ViewMut::from_host(bytes.as_mut_ptr(), bytes.len(), dtype, layout.clone()) }
        }
        #[cfg(feature = "cuda")]
        DeviceTensor::Cuda(tensor) => {
            let Device::Cuda(device) = tensor.device() else { unreachable!("its own device") };
            let (dtype, elements) = (tensor.dtype(), tensor.shape().iter().product::<usize>());
            let bytes = (elements * dtype.size()) as u64;
            // SAFETY: as above.
            unsafe { ViewMut::from_cuda(&device, tensor.address(), bytes, dtype, layout.clone()) }
        }
        _ => unreachable!("host memory or CUDA's"),
    }
}

/// What differs between two lots of results.
pub(crate) fn differences(expected: &Results, found: &Results) -> Vec<String> {
    let bits = |values: &[f64]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
    let both = expected.iter().zip(found).filter(|((_, a), (_, b))| bits(a) != bits(b));
    both.map(|((name, a), (_, b))| {
        let at = a.iter().zip(b).position(|(a, b)| a.to_bits() != b.to_bits());
        let values = at.map(|at| (at, a[at], b[at]));
        format!("{name}: {values:?} of {} and {}", a.len(), b.len())
    })
    .collect()
}
