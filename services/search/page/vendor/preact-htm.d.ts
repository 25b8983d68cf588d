// Types of htm's standalone build: Preact, its hooks and htm in one module.
import type { VNode } from "preact";

export { Component, createContext, h, render } from "preact";
export {
  useCallback,
  useContext,
  useDebugValue,
  useEffect,
  useErrorBoundary,
  useImperativeHandle,
  useLayoutEffect,
  useMemo,
  useReducer,
  useRef,
  useState,
} from "preact/hooks";
export const html: (strings: TemplateStringsArray, ...values: any[]) => VNode<any>;
