//! The self-test: every function of `kernels/device.cuh` once, compared with what it must give. It comes before any
//! kernel on a new GPU, or a new compiler.

use super::driver::{Function, Launch};
use super::fault::refused;
use super::{CudaDevice, render};
use crate::tensor::{DType, Element, HostTensor};
use crate::{Error, Result};
use half::{bf16, f16};
use std::fmt::{self, Display};

/// The launch of every part, as `kernels/self_test.cu` wants it.
const BLOCKS: usize = 2;
const THREADS: usize = 64;
const SHARED: u32 = 2688;

/// Results of a thread, or of a word of the input.
const MEETING_WORDS: usize = 16;
const CONVERSION_WORDS: usize = 11;
const ARITHMETIC_WORDS: usize = 6;

/// Bytes between the sections of the copies, and what each access of a section is long.
const SECTION: usize = 4096;
const ACCESSES: [usize; 13] = [2, 4, 8, 16, 2, 16, 4, 8, 16, 32, 8, 16, 32];

/// The parts of the self-test, by the numbers of `kernels/self_test.cu`.
#[derive(Debug, Clone, Copy)]
enum Part {
    Meeting = 0,
    Copies = 1,
    Conversions = 2,
    Arithmetic = 3,
}

/// What a word must be: bits, or a number, which may be any NaN if it is one.
#[derive(Debug, Clone, Copy)]
enum Word {
    Bits(u64),
    F16(f16),
    BF16(bf16),
    F32(f32),
    F64(f64),
}

impl Word {
    fn is(self, found: u64) -> bool {
        match self {
            Word::Bits(bits) => found == bits,
            Word::F16(x) if x.is_nan() => {
                u16::try_from(found).is_ok_and(|bits| f16::from_bits(bits).is_nan())
            }
            Word::BF16(x) if x.is_nan() => {
                u16::try_from(found).is_ok_and(|bits| bf16::from_bits(bits).is_nan())
            }
            Word::F32(x) if x.is_nan() => {
                u32::try_from(found).is_ok_and(|bits| f32::from_bits(bits).is_nan())
            }
            Word::F64(x) if x.is_nan() => f64::from_bits(found).is_nan(),
            _ => found == self.bits(),
        }
    }

    fn bits(self) -> u64 {
        match self {
            Word::Bits(bits) => bits,
            Word::F16(x) => x.to_bits().into(),
            Word::BF16(x) => x.to_bits().into(),
            Word::F32(x) => x.to_bits().into(),
            Word::F64(x) => x.to_bits(),
        }
    }
}

impl Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:#x}", self.bits())
    }
}

impl CudaDevice {
    /// Runs everything that kernels are made of once (barriers, shuffles, shared memory, clusters where the device
    /// has them, loads and stores, conversions, arithmetic), and says what did not give what it must.
    pub fn self_test(&self) -> Result<()> {
        let test = SelfTest::new(self)?;
        let largest_cluster = if self.limits().capability >= (9, 0) { BLOCKS } else { 1 };
        for cluster in 1..=largest_cluster {
            test.compare(Part::Meeting, cluster, &[0], meeting(cluster))?;
        }
        test.copies()?;
        let numbers = numbers();
        test.compare(Part::Conversions, 1, &numbers, numbers.iter().flat_map(|&x| conversions(x)))?;
        let triples = numbers.windows(3).flat_map(|w| arithmetic(w[0], w[1], w[2]));
        test.compare(Part::Arithmetic, 1, &numbers, triples)
    }
}

/// The self-test's kernel on a device.
struct SelfTest<'a> {
    device: &'a CudaDevice,
    function: Function,
}

impl<'a> SelfTest<'a> {
    fn new(device: &'a CudaDevice) -> Result<Self> {
        let function = compile(device, "self_test", include_str!("../../../kernels/self_test.cu"))?;
        Ok(SelfTest { device, function })
    }

    fn wrong(&self, part: Part, reason: impl Display) -> Error {
        refused(self.device.backend(), format!("the self-test, {part:?}"), reason)
    }

    fn compare(
        &self,
        part: Part,
        cluster: usize,
        input: &[u64],
        expected: impl Iterator<Item = Word>,
    ) -> Result<()> {
        let expected: Vec<Word> = expected.collect();
        let found = run(self.device, &self.function, part as u32, cluster, input, expected.len())?;
        match expected.iter().zip(&found).position(|(word, &found)| !word.is(found)) {
            None => Ok(()),
            Some(i) => Err(self.wrong(
                part,
                format!("clusters of {cluster}: word {i} is {:#x} instead of {}", found[i], expected[i]),
            )),
        }
    }

    fn copies(&self) -> Result<()> {
        let input: Vec<u64> = (0..ACCESSES.len() * SECTION / 8).map(|i| mixed(i as u64)).collect();
        let mut expected = vec![0; input.len()];
        for (section, access) in ACCESSES.into_iter().enumerate() {
            let words = section * SECTION / 8..(section * SECTION + access * BLOCKS * THREADS) / 8;
            expected[words.clone()].copy_from_slice(&input[words]);
        }
        self.compare(Part::Copies, 1, &input, expected.into_iter().map(Word::Bits))
    }
}

/// The entry of a file of `kernels/`, and called as it.
fn compile(device: &CudaDevice, name: &'static str, file: &'static str) -> Result<Function> {
    let unit = render::render_file(name, file, device.limits().is_host);
    let mut functions = device.compile(&unit.source, &unit.names)?;
    functions.pop().ok_or_else(|| refused(device.backend(), name, "compiled to nothing"))
}

/// Launches such an entry, whose parameters are addresses of input and output, the words of the input, and a number.
fn run(
    device: &CudaDevice,
    function: &Function,
    number: u32,
    cluster: usize,
    input: &[u64],
    words: usize,
) -> Result<Vec<u64>> {
    let mut words_of_input = HostTensor::zeros(&[input.len()], DType::F64)?;
    words_of_input.bytes_mut().copy_from_slice(bytemuck::cast_slice(input));
    let input = device.upload(&words_of_input)?;
    let output = device.zeros(&[words], DType::F64)?;
    let params = [input.address(), output.address(), input.shape()[0] as u64, number.into()];
    let launch = Launch {
        function: function.clone(),
        grid: BLOCKS as u64,
        block: THREADS as u32,
        shared: SHARED,
        cluster: cluster as u32,
        params: bytemuck::cast_slice(&params).to_vec(),
    };
    device.stream().run("the self-test", &[launch])?;
    Ok(output.read()?.bytes().chunks_exact(8).map(bytemuck::pod_read_unaligned).collect())
}

/// A word that looks random.
fn mixed(i: u64) -> u64 {
    let x = (i + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    (x ^ (x >> 29)).wrapping_mul(0xBF58_476D_1CE4_E5B9)
}

/// What `meeting` of `kernels/self_test.cu` writes, thread by thread.
fn meeting(cluster: usize) -> impl Iterator<Item = Word> {
    (0..BLOCKS).flat_map(move |block| {
        (0..THREADS).flat_map(move |thread| meeting_of(block, thread, cluster).map(Word::Bits))
    })
}

fn meeting_of(block: usize, thread: usize, cluster: usize) -> [u64; MEETING_WORDS] {
    let of = |block: usize, thread: usize| (block * 1000 + thread % THREADS) as u64;
    let x = |thread: usize| of(block, thread);
    let wide = |x: u64| x.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let pair = |low: u64, high: u64| low | high << 32;
    let (lane, warp) = (thread % 32, thread / 32 * 32);
    let in_warp = |lane: usize| x(warp + lane);
    let rank = if cluster > 1 { block } else { 0 };
    let next = if cluster > 1 { 1 - block } else { block };
    let other_half = lane ^ 16;
    let parted = if other_half < 16 { in_warp(other_half ^ 1) + 1 } else { in_warp(other_half ^ 2) + 2 };
    [
        pair((thread | THREADS << 16) as u64, block as u64),
        1 | u64::from(block == 0) << 2,
        u64::from(folded(lane, 32, in_warp) as u32),
        folded(lane, 32, |lane| wide(in_warp(lane))),
        folded(lane, 8, |lane| wide(in_warp(lane))),
        pair(in_warp(7), in_warp((lane * 5 + 3) % 32)),
        (wide(in_warp(lane ^ 6)) as f64).to_bits(),
        u64::from(lane / 8 == 1) | u64::from(warp == 32) << 1,
        x(thread + 17),
        (x(thread + 40) as f64).to_bits(),
        pair(x(thread + 1) + 1, x(thread + 1) + 3),
        x(thread + 2),
        pair(rank as u64, cluster as u64),
        of(next, thread + 3),
        wide(of(next, thread + 4)),
        parted,
    ]
}

/// `folded` of `kernels/self_test.cu`: in 64 bits, the lower half of which is what 32 bits give.
fn folded(lane: usize, distances: usize, x: impl Fn(usize) -> u64) -> u64 {
    let mut lanes: Vec<u64> = (0..32).map(x).collect();
    let mut distance = 1;
    while distance < distances {
        lanes = (0..32).map(|i| lanes[i].wrapping_mul(3).wrapping_add(lanes[i ^ distance])).collect();
        distance *= 2;
    }
    lanes[lane]
}

/// Bit patterns: every one of 16 bits with anything before it, and ties of the narrower types with their neighbours.
fn numbers() -> Vec<u64> {
    let patterns = (0..1 << 16).map(|i| mixed(i) & !0xFFFF | i);
    let ties = (0..1 << 13).flat_map(|i| {
        // Odd multiples of a power of two, within and beyond what the narrow types reach.
        let odd = (mixed(i) % 4096 * 2 + 1) as f64;
        let tie = odd * 2f64.powi((mixed(i) >> 32) as i32 % 64 - 48);
        let sign = mixed(i) >> 63;
        let double = tie.to_bits() | sign << 63;
        let single = u64::from((tie as f32).to_bits()) | sign << 31;
        [double - 1, double, double + 1, single - 1, single, single + 1]
    });
    patterns.chain(ties).collect()
}

fn conversions(x: u64) -> [Word; CONVERSION_WORDS] {
    let (half, brain) = (f16::from_bits(x as u16), bf16::from_bits(x as u16));
    let (single, double) = (f32::from_bits(x as u32), f64::from_bits(x));
    [
        Word::F32(half.to_f32()),
        Word::F64(half.to_f64()),
        Word::F32(brain.to_f32()),
        Word::F64(brain.to_f64()),
        Word::F16(f16::from_f32(single)),
        Word::BF16(bf16::from_f32(single)),
        Word::F64(single.into()),
        Word::F16(Element::from_f64(double)),
        Word::BF16(Element::from_f64(double)),
        Word::F32(double as f32),
        Word::Bits(x),
    ]
}

fn arithmetic(x: u64, y: u64, z: u64) -> [Word; ARITHMETIC_WORDS] {
    let [a, b, c] = [x, y, z].map(|x| f32::from_bits(x as u32));
    let [d, e, f] = [x, y, z].map(f64::from_bits);
    [
        Word::F32(a * b + c),
        Word::F32(a / b),
        Word::F32(a.sqrt()),
        Word::F64(d * e + f),
        Word::F64(d / e),
        Word::F64(d.sqrt()),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::{HostOptions, Schedule};
    use super::*;
    use std::process::Command;

    const SCHEDULES: [Schedule; 3] = [Schedule::Ascending, Schedule::Descending, Schedule::Random];

    /// The fault of `kernels/faults.cu` that a child process shall commit.
    const SEEDED: &str = "NORMKIT_SEEDED_FAULT";

    fn host(schedule: Schedule, sanitize: bool) -> CudaDevice {
        let options = HostOptions { schedule, seed: 3, sanitize, ..HostOptions::default() };
        CudaDevice::host_with(&options).unwrap()
    }

    fn faults(device: &CudaDevice) -> Function {
        compile(device, "faults", include_str!("../../../kernels/faults.cu")).unwrap()
    }

    /// Commits a fault of `kernels/faults.cu`. The tensors have four bytes for every thread.
    fn fault(device: &CudaDevice, function: &Function, which: u32, cluster: usize) -> Result<Vec<u64>> {
        run(device, function, which, cluster, &[0; BLOCKS * THREADS / 2], BLOCKS * THREADS / 2)
    }

    #[test]
    fn the_host_driver_passes_in_every_order() {
        for schedule in SCHEDULES {
            host(schedule, false).self_test().unwrap();
        }
    }

    #[test]
    fn faults_are_reported() {
        // The fault's number, the size of a cluster, and part of the message.
        let messages = [
            (1, 1, "thread 48 of block 0 never comes, it has ended"),
            (2, 1, "other threads of the block wait at another, barrier at"),
            (3, 1, "thread 40 of block 0 never comes, it has ended"),
            (4, 1, "the mask 0000ffff lacks the caller, lane"),
            (5, 1, "mask ffffffff: lane 9 never comes, it has ended"),
            (6, 1, "mask ffffffff: lane 3 never comes, it waits at a barrier"),
            (7, 1, ", and that of lane "),
            (8, 1, "which the mask "),
            (9, 1, "waits at another, shuffle_xor at"),
            (10, 2, "of block 1 never comes, it has ended"),
            (11, 1, "they were never written"),
            (12, 1, "they are beyond the shared memory of the launch"),
            (13, 1, "they are misaligned"),
            (14, 1, "a race:"),
            (15, 1, "a race:"),
            (16, 1, "16 bytes at once"),
            (17, 1, "8 bytes at once"),
            (18, 2, "whose shared memory it reads, has ended"),
            (19, 2, "a race:"),
            (20, 1, "null"),
        ];
        for schedule in SCHEDULES {
            let device = host(schedule, false);
            let function = faults(&device);
            fault(&device, &function, 0, 1).unwrap();
            for (which, cluster, part) in messages {
                let message = fault(&device, &function, which, cluster).unwrap_err().to_string();
                // Blocks come in another order, too.
                let found = message.replace("of block 1 never", "of block 0 never");
                let part = part.replace("of block 1 never", "of block 0 never");
                assert!(found.contains(&part), "{which} {schedule:?}: {message}");
                assert!(message.contains("faults (one_fault), block "), "{message}");
            }
            // The device is as good as before.
            fault(&device, &function, 0, 1).unwrap();
        }
    }

    #[test]
    fn results_that_depend_on_the_order_differ_between_schedules() {
        let results = SCHEDULES.map(|schedule| {
            let device = host(schedule, false);
            let function = faults(&device);
            fault(&device, &function, 23, 1).unwrap()
        });
        assert!(results[0] != results[1] && results[1] != results[2] && results[2] != results[0]);
    }

    /// The sanitizer ends the process, so another one commits the fault.
    #[test]
    fn accesses_out_of_bounds_are_found_by_the_sanitizer() {
        if let Ok(which) = std::env::var(SEEDED) {
            let device = host(Schedule::Ascending, true);
            let function = faults(&device);
            fault(&device, &function, which.parse().unwrap(), 1).unwrap();
            return;
        }
        let library = Command::new("c++").arg("-print-file-name=libasan.so").output().unwrap();
        let library = String::from_utf8(library.stdout).unwrap();
        let commit = |which: &str| {
            let name = "backend::cuda::self_test::tests::accesses_out_of_bounds_are_found_by_the_sanitizer";
            let mut command = Command::new(std::env::current_exe().unwrap());
            command.args([name, "--exact", "--nocapture"]).env(SEEDED, which);
            command.env("LD_PRELOAD", library.trim()).env("ASAN_OPTIONS", "detect_leaks=0");
            let output = command.output().unwrap();
            (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
        };
        let (fine, stderr) = commit("0");
        assert!(fine, "{stderr}");
        for (which, kind) in [("21", "READ of size 4"), ("22", "WRITE of size 4")] {
            let (fine, stderr) = commit(which);
            assert!(
                !fine && stderr.contains("heap-buffer-overflow") && stderr.contains(kind),
                "{which}: {stderr}"
            );
        }
    }
}
