//! Devices, data, and the comparison with burn's own operations in float64.
#![allow(dead_code, reason = "each test uses some of it")]
#![allow(deprecated, reason = "burn calls NdArray its former backend; it is still there")]

use burn::tensor::{DType, Device, Tensor, TensorData};

/// The devices that are tested, with what their results may be off by, as a share of the largest.
pub(crate) fn devices() -> Vec<(&'static str, Device, DType, f64)> {
    #[allow(unused_mut, reason = "features add to it")]
    let mut all = vec![
        ("flex f32", Device::flex(), DType::F32, 2e-6),
        ("flex f64", Device::flex(), DType::F64, 1e-14),
        ("flex bf16", Device::flex(), DType::BF16, 2e-2),
        ("flex f16", Device::flex(), DType::F16, 2e-3),
    ];
    #[cfg(feature = "ndarray")]
    all.extend([
        ("ndarray f32", Device::ndarray(), DType::F32, 2e-6),
        ("ndarray f64", Device::ndarray(), DType::F64, 1e-14),
    ]);
    #[cfg(feature = "wgpu")]
    all.push(("wgpu f32", wgpu(), DType::F32, 2e-6));
    // A GPU, which that feature is tested on.
    #[cfg(feature = "cuda")]
    all.extend([
        ("cuda f32", Device::cuda(0), DType::F32, 2e-6),
        ("cuda bf16", Device::cuda(0), DType::BF16, 2e-2),
    ]);
    all
}

/// burn's wgpu device on the software adapter, shared with normkit.
#[cfg(feature = "wgpu")]
pub(crate) fn wgpu() -> Device {
    static DEVICE: std::sync::OnceLock<Device> = std::sync::OnceLock::new();
    let made = DEVICE.get_or_init(|| {
        normkit_burn::wgpu::init(burn::tensor::DeviceKind::DefaultDevice)
            .expect("a Vulkan adapter: on Debian, mesa-vulkan-drivers and libvulkan1 have one")
    });
    made.clone()
}

/// Numbers without a pattern, of some size.
pub(crate) fn numbers(count: usize, seed: u64) -> Vec<f64> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 11) as f64 / (1u64 << 53) as f64
    };
    // A sum of uniform numbers, and off zero.
    (0..count).map(|_| (0..4).map(|_| next()).sum::<f64>() - 1.7).collect()
}

/// A tensor of a device and dtype.
pub(crate) fn tensor<const D: usize>(
    values: &[f64],
    shape: [usize; D],
    device: &Device,
    dtype: DType,
) -> Tensor<D> {
    Tensor::from_data(TensorData::new(values.to_vec(), shape), (device, dtype))
}

/// A call: of tensors of the input's rank, and of parameters.
pub(crate) type Call<'c, const D: usize> = &'c dyn Fn(&[Tensor<D>], &[Tensor<1>]) -> Vec<Tensor<D>>;

/// A call and burn's own operations for it.
pub(crate) struct Case<'c, const D: usize> {
    pub(crate) name: &'c str,
    pub(crate) inputs: Vec<[usize; D]>,
    pub(crate) parameters: Vec<usize>,
    pub(crate) ours: Call<'c, D>,
    pub(crate) reference: Call<'c, D>,
}

/// The values, and the gradients of those tensors that want one.
type Results = (Vec<Vec<f64>>, Vec<Option<Vec<f64>>>);

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f64> {
    tensor.into_data().iter::<f64>().collect()
}

impl<const D: usize> Case<'_, D> {
    /// Runs a call where the tensors of `wanted`, a bit each, want gradients.
    fn run(
        &self,
        call: Call<'_, D>,
        wanted: usize,
        (device, dtype): (&Device, DType),
        rounded_to: DType,
    ) -> Results {
        let device = &device.clone().autodiff();
        let mut count = 0;
        let mut next = |values: usize| {
            count += 1;
            let numbers = numbers(values, 17 * count as u64);
            // What the dtype under test makes of them is what both are given.
            let plain = Device::flex();
            let rounded: Tensor<1> = tensor(&numbers, [values], &plain, rounded_to);
            (count - 1, self::values(rounded))
        };
        let inputs: Vec<Tensor<D>> = (self.inputs.iter())
            .map(|shape| {
                let (index, values) = next(shape.iter().product());
                let tensor = tensor(&values, *shape, device, dtype);
                if wanted >> index & 1 == 1 { tensor.require_grad() } else { tensor }
            })
            .collect();
        let parameters: Vec<Tensor<1>> = (self.parameters.iter())
            .map(|&size| {
                let (index, values) = next(size);
                let tensor = tensor(&values, [size], device, dtype);
                if wanted >> index & 1 == 1 { tensor.require_grad() } else { tensor }
            })
            .collect();
        let outputs = call(&inputs, &parameters);
        let results = outputs.iter().map(|output| values(output.clone())).collect();
        if wanted == 0 {
            return (results, vec![None; inputs.len() + parameters.len()]);
        }
        let mut loss: Option<Tensor<1>> = None;
        for (index, output) in outputs.into_iter().enumerate() {
            let weights = numbers(output.shape().num_elements(), 1000 + index as u64);
            let rounded: Tensor<1> = tensor(&weights, [weights.len()], &Device::flex(), rounded_to);
            let weights = tensor(&values(rounded), output.dims(), device, dtype);
            let term = (output * weights).sum();
            loss = Some(loss.map_or(term.clone(), |loss| loss + term));
        }
        let grads = loss.expect("an output").backward();
        let of_inputs = inputs.iter().map(|input| input.grad(&grads).map(values));
        let of_parameters = parameters.iter().map(|parameter| parameter.grad(&grads).map(values));
        (results, of_inputs.chain(of_parameters).collect())
    }

    /// Compares values and gradients, for every choice of tensors that want one.
    pub(crate) fn check(&self) {
        for (device_name, device, dtype, tolerance) in devices() {
            let exact = Device::flex();
            for wanted in 0..1usize << (self.inputs.len() + self.parameters.len()) {
                let what = format!("{} on {device_name}, gradients {wanted:b}", self.name);
                let (ours, our_grads) = self.run(self.ours, wanted, (&device, dtype), dtype);
                let (expected, grads) = self.run(self.reference, wanted, (&exact, DType::F64), dtype);
                for (ours, expected) in ours.iter().zip(&expected) {
                    near(&what, ours, expected, tolerance);
                }
                for (index, (ours, expected)) in our_grads.iter().zip(&grads).enumerate() {
                    let is_wanted = wanted >> index & 1 == 1;
                    assert_eq!((ours.is_some(), expected.is_some()), (is_wanted, is_wanted), "{what}");
                    if let (Some(ours), Some(expected)) = (ours, expected) {
                        near(&format!("{what}, that of {index}"), ours, expected, 4.0 * tolerance);
                    }
                }
            }
        }
    }
}

/// Whether all of `found` are as near to `expected` as a share of the largest.
pub(crate) fn near(what: &str, found: &[f64], expected: &[f64], tolerance: f64) {
    assert_eq!(found.len(), expected.len(), "{what}");
    let most = expected.iter().fold(0.0f64, |most, x| most.max(x.abs()));
    for (index, (found, expected)) in found.iter().zip(expected).enumerate() {
        let error = (found - expected).abs() / most.max(1e-30);
        assert!(error <= tolerance, "{what}: element {index} is {found}, not {expected}: {error:e}");
    }
}
